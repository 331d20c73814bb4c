"""Prompts whose control tokens all come from the chat template, whatever the text in them spells."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Protocol

from selfreward.model_files.template_turns import silenced
from selfreward.records import Message


class Tokenizer(Protocol):
    @property
    def control_tokens(self) -> tuple[str, ...]: ...

    def encode_text(self, text: str) -> tuple[int, ...]: ...


class ControlTokens:
    """The control tokens of a tokenizer: in counts, and in text that must not become any."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Hardly any conversations differ in what the template alone writes.
        self._expected = lru_cache(256)(lambda encode, turns: self.count(encode(turns)))

    @cached_property
    def ids(self) -> frozenset[int]:
        encoded = map(self._tokenizer.encode_text, self._tokenizer.control_tokens)
        return frozenset(token_ids[0] for token_ids in encoded if len(token_ids) == 1)

    def count(self, token_ids: Iterable[int]) -> Counter[int]:
        return Counter(token_id for token_id in token_ids if token_id in self.ids)

    def broken(self, text: str) -> str:
        """Return the text with a space after the first character of each control token."""
        for token in sorted(self._tokenizer.control_tokens, key=len, reverse=True):
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def encoded(
        self, messages: Sequence[Message], encode: Callable[[Sequence[Message]], tuple[int, ...]]
    ) -> tuple[int, ...] | None:
        """Return token ids whose control tokens all come from the chat template; None when this is impossible.

        `encode` should be the same object in each call. A template may not escape its input, and a tokenizer may
        produce control tokens that the text does not contain (it normalises characters), so the check is on the tokens.
        """
        expected = self._expected(encode, tuple(map(silenced, messages)))
        token_ids = encode(messages)
        if self.count(token_ids) == expected:
            return token_ids
        token_ids = encode([replace(message, content=self.broken(message.content)) for message in messages])
        return token_ids if self.count(token_ids) == expected else None
