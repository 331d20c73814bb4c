"""What a stage or an update asks at most: upper bounds on the run's real prompts, which `selfreward plan` adds up.

Everything that asks a model says so beside the code that does: a judge in `most`, next to `judge`. Nothing here knows a
judge, a selector or a stage.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

from selfreward.records import Message, Prompt
from selfreward.requests import ChatRequest


@dataclass(frozen=True)
class Workload:
    """`num_responses` to each prompt, of `max_tokens` tokens at most, as a judge meets them in `iteration`.

    `seen_before`: all of these responses but the first one of a prompt were judged with the same question before.
    """

    prompts: Sequence[Prompt]
    num_responses: int
    max_tokens: int
    iteration: int
    seen_before: bool = False


@dataclass(frozen=True)
class CandidateWorkload:
    """What a table of responses has to each prompt at most: so many, of so many tokens."""

    num_responses: int
    max_tokens: int


@dataclass(frozen=True)
class Requests:
    """`times` requests about each of several prompts, to the model `by`.

    The prompt of a request has `first_P` tokens that it shares with the others about the same prompt, of which
    `num_common` stand in all requests, and then `rest` tokens of responses. `ask` is the request without its messages,
    and `opening_tokens` belong to its opening; None computes the prompt and no more. `in_engine` is false for a model
    that scores beside it. `num_known` of the `times` were asked before: an endpoint's replies are kept, and only what
    is new is sent. `may_not_fit`: a prompt that exceeds the context is not asked, and its judgment unscored.
    """

    by: str
    first_P: tuple[int, ...]
    rest: int = 0
    times: int = 1
    num_common: int = 0
    ask: ChatRequest | None = None
    opening_tokens: int = 0
    in_engine: bool = True
    num_known: int = 0
    may_not_fit: bool = False

    @property
    def lengths(self) -> list[int]:
        """Of the prompts, one for each request."""
        return [first + self.rest for first in self.first_P for _ in range(self.times)]


def asked_before(requests: Sequence[Requests]) -> list[Requests]:
    """The same questions as in an earlier iteration, all of them."""
    return [replace(each, num_known=each.times) for each in requests]


@dataclass(frozen=True)
class PairBound:
    """A pair that may come of a prompt: its prompt and each of its two sides have so many tokens at most."""

    kind: Literal["response", "judgment"]
    prompt_tokens: int
    side_tokens: int


@dataclass(frozen=True)
class UpdateWork:
    """What an update computes at most; `num_training_tokens` are those of all its steps."""

    num_pairs: int = 0
    num_judgment_pairs: int = 0
    num_steps: int = 0
    num_training_tokens: int = 0
    longest_pair_tokens: int = 0
    num_tokens_without_gradient: int = 0


def total(works: Sequence[UpdateWork]) -> UpdateWork:
    """Of updates one after the other."""
    sums = {field.name: sum(getattr(work, field.name) for work in works) for field in fields(UpdateWork)}
    return UpdateWork(**{**sums, "longest_pair_tokens": max((work.longest_pair_tokens for work in works), default=0)})


class Tokenizer(Protocol):
    """Of an engine what counting needs."""

    @property
    def context_tokens(self) -> int: ...

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]: ...

    def encode_text(self, text: str) -> tuple[int, ...]: ...


class Question(Protocol):
    """Of a template what counting needs."""

    @property
    def name(self) -> str: ...

    def render(self, **fields: str | Sequence[Message] | None) -> tuple[Message, ...]: ...


class Lengths:
    """How long prompts are in the tokens of the model that will read them; each is measured once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[Hashable, int] = {}

    @property
    def context_tokens(self) -> int:
        return self._tokenizer.context_tokens

    def prompt(self, prompt: Prompt) -> int:
        return self._once(prompt.id, lambda: len(self._tokenizer.encode(prompt.messages)))

    def prompts(self, prompts: Sequence[Prompt]) -> tuple[int, ...]:
        return tuple(map(self.prompt, prompts))

    def question(self, template: Question, prompt: Prompt, *, thinking: bool, **values: str | None) -> int:
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


def draws(by: str, prompts: Sequence[Prompt], lengths: Lengths, *, max_tokens: int, n: int = 1) -> list[Requests]:
    """`n` responses of a model to each prompt."""
    ask = ChatRequest((), max_tokens=max_tokens, n=n)
    return [Requests(by, lengths.prompts(prompts), ask=ask)] if prompts else []


def forward(by: str, prompts: Sequence[Prompt], lengths: Lengths, *, max_tokens: int, times: int = 1) -> list[Requests]:
    """Each prompt with a response of `max_tokens` once through a model, `times` over."""
    return [Requests(by, lengths.prompts(prompts), rest=max_tokens, times=times)] if prompts else []
