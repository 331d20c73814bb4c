"""When a response ends: at an end token, or where its text contains a stop string of the request."""

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.model_files.tokenizer import ChatTokenizer

# A token may have no text of its own: a special token, or a part of a character.
_SPARE_TOKENS = 8


@dataclass(frozen=True)
class Stopping:
    """The ends of one request's responses. A stop string that is a single token of the vocabulary is an end token.

    The tokens of a stop string stay in the response, since they were sampled; its text ends before the string.
    """

    chat: ChatTokenizer
    end_token_ids: tuple[int, ...]
    strings: tuple[str, ...] = ()

    @classmethod
    def of(cls, chat: ChatTokenizer, stop: Sequence[str]) -> "Stopping":
        single = {text: token_id for text in stop if (token_id := chat.added_token_id(text)) is not None}
        end_token_ids = tuple(sorted({*chat.end_token_ids, *single.values()}))
        return cls(chat, end_token_ids, tuple(text for text in stop if text not in single))

    def has_ended(self, token_ids: Sequence[int]) -> bool:
        """Return whether the newest token ended the response."""
        if not token_ids:
            return False
        return token_ids[-1] in self.end_token_ids or self._has_string(token_ids)

    def text(self, token_ids: Sequence[int]) -> str:
        """Return the text of a response without its end token, and before the first stop string."""
        ended = bool(token_ids) and token_ids[-1] in self.end_token_ids
        text = self.chat.decode(token_ids[:-1] if ended else token_ids)
        return text[: min((at for string in self.strings if (at := text.find(string)) >= 0), default=len(text))]

    def _has_string(self, token_ids: Sequence[int]) -> bool:
        if not self.strings:
            return False
        num_tail = 2 * max(len(string.encode()) for string in self.strings) + _SPARE_TOKENS
        tail = self.chat.decode(token_ids[-num_tail:])
        return any(string in tail for string in self.strings)
