"""Lengths of texts in tokens without a tokenizer, for plans of models of which only the configuration is here."""

import re
import zlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from selfreward.model_files.tokenizer import ChatTokenizer
from selfreward.records import Message

TURN_TOKENS: Final = 5
"""Tokens that a chat template adds to a turn."""

_FILES: Final = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model",
    "tekken.json",
)  # fmt: skip
# English words have 1.3 tokens in current vocabularies; these pieces give 1.3 to 1.5, and one for each other character.
_PIECE = re.compile(r" ?[A-Za-z]{1,6}|\d{1,3}| ?[^\w\s]{1,2}|\s+|\w")
_THINKING_TOKENS = 4


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _FILES)


class EstimatedTokenizer(ChatTokenizer):
    """A tokenizer whose ids mean nothing and whose lengths are rather too long than too short."""

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        return (0,)

    @cached_property
    def control_tokens(self) -> tuple[str, ...]:
        return ()

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]:
        turns = [token_id for message in messages for token_id in self.encode_text(message.content)]
        num_more = TURN_TOKENS * (len(messages) + 1) + (0 if thinking else _THINKING_TOKENS)
        return (*turns, *(0,) * num_more)

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(zlib.crc32(piece.encode("utf-8", "replace")) for piece in _PIECE.findall(text))
