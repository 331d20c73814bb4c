"""How long prompts are in the tokens of the model that will read them; each is measured once."""

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from selfreward.parts import ChatRequest
from selfreward.records import Message, Prompt
from selfreward.templates import Template


class Tokenizer(Protocol):
    """Of an engine what counting needs."""

    def context_tokens(self, asked: int) -> int: ...

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]: ...

    def encode_text(self, text: str) -> tuple[int, ...]: ...


class Lengths:
    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[Hashable, int] = {}

    def prompt(self, prompt: Prompt) -> int:
        return self._once(prompt.id, lambda: len(self._tokenizer.encode(prompt.messages)))

    def question(self, template: Template, prompt: Prompt, *, thinking: bool, **values: str | None) -> int:
        """A judge's prompt about `prompt`; a response in it that is "" leaves its empty block."""
        return self._once(
            (template.name, prompt.id, thinking, *sorted(values.items(), key=lambda item: item[0])),
            lambda: len(self._tokenizer.encode(template.render(prompt=prompt.messages, **values), thinking=thinking)),
        )

    def opening(self, ask: ChatRequest) -> int:
        """What the assistant's turn begins with; the choice that follows is one token."""
        return len(self._tokenizer.encode_text(ask.opening + ask.choices[0])) - 1 if ask.choices else 0

    def text(self, text: str) -> int:
        return len(self._tokenizer.encode_text(text))

    def _once(self, key: Hashable, measure: Callable[[], int]) -> int:
        if key not in self._known:
            self._known[key] = measure()
        return self._known[key]
