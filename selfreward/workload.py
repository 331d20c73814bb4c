"""Upper bounds on the requests of a stage and the work of an update, on the run's real prompts; `plan` sums them.

Every part that queries a model defines its bound next to the code that queries it: a judge has `max_requests` next to
`judge`. This module does not depend on judges, selectors or stages.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol

from selfreward.records import Message, Prompt
from selfreward.requests import ChatRequest


@dataclass(frozen=True)
class Workload:
    """`num_responses` to each prompt, of at most `max_tokens` tokens, as the input of a judge in `iteration`.

    `num_own` of the responses to each prompt are the policy's own, with log-probabilities from sampling.
    `already_judged`: all responses except the first to each prompt were judged with the same request before.
    """

    prompts: Sequence[Prompt]
    num_responses: int
    max_tokens: int
    iteration: int
    already_judged: bool = False
    num_own: int = 0


@dataclass(frozen=True)
class ResponseBound:
    """Upper bounds on a table of responses: responses per prompt, and tokens per response."""

    num_responses: int
    max_tokens: int


@dataclass(frozen=True)
class Requests:
    """`times` requests for each of several prompts, to the model `by`.

    The prompt of a request has `first_P` tokens shared with the other requests for the same prompt, of which
    `num_common` are shared by all requests, and then `rest` tokens of responses. `chat_request` is the request without
    its messages, and `opening_tokens` the length of its opening; None for a forward pass only. `in_engine` is false for
    a model that scores outside the engine. `num_cached` of the `times` are cached: an endpoint's replies are stored,
    and only new requests are sent. `may_not_fit`: a prompt that exceeds the context is not sent, and its judgment is
    unscored.
    """

    by: str
    first_P: tuple[int, ...]
    rest: int = 0
    times: int = 1
    num_common: int = 0
    chat_request: ChatRequest | None = None
    opening_tokens: int = 0
    in_engine: bool = True
    num_cached: int = 0
    may_not_fit: bool = False

    @property
    def lengths(self) -> list[int]:
        """Prompt lengths in tokens, one for each request."""
        return [first + self.rest for first in self.first_P for _ in range(self.times)]


def all_cached(requests: Sequence[Requests]) -> list[Requests]:
    """Return the same requests, all of them cached from an earlier iteration."""
    return [replace(each, num_cached=each.times) for each in requests]


@dataclass(frozen=True)
class PairBound:
    """Upper bounds on a pair that a prompt may give: tokens of its prompt and of each of its two sides."""

    kind: Literal["response", "judgment"]
    prompt_tokens: int
    side_tokens: int


@dataclass(frozen=True)
class UpdateWork:
    """Upper bounds on the computation of an update; `num_training_tokens` counts all its steps."""

    num_pairs: int = 0
    num_judgment_pairs: int = 0
    num_steps: int = 0
    num_training_tokens: int = 0
    longest_pair_tokens: int = 0
    num_tokens_without_gradient: int = 0


def total(works: Sequence[UpdateWork]) -> UpdateWork:
    """Return the work of several updates, one after another."""
    sums = {field.name: sum(getattr(work, field.name) for work in works) for field in fields(UpdateWork)}
    return UpdateWork(**{**sums, "longest_pair_tokens": max((work.longest_pair_tokens for work in works), default=0)})


class Tokenizer(Protocol):
    """The part of an engine that is needed to count tokens."""

    @property
    def context_tokens(self) -> int: ...

    def encode(self, messages: Sequence[Message], *, thinking: bool = True) -> tuple[int, ...]: ...

    def encode_text(self, text: str) -> tuple[int, ...]: ...


class PromptTemplate(Protocol):
    """The part of a prompt template that is needed to count tokens."""

    @property
    def name(self) -> str: ...

    def render(self, **fields: str | Sequence[Message] | None) -> tuple[Message, ...]: ...


class Lengths:
    """Lengths of prompts in tokens of the model that will be prompted; each is measured once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[Hashable, int] = {}

    @property
    def context_tokens(self) -> int:
        return self._tokenizer.context_tokens

    def prompt(self, prompt: Prompt) -> int:
        return self._once(prompt.messages, lambda: len(self._tokenizer.encode(prompt.messages)))

    def prompts(self, prompts: Sequence[Prompt]) -> tuple[int, ...]:
        return tuple(map(self.prompt, prompts))

    def question(self, template: PromptTemplate, prompt: Prompt, *, thinking: bool, **values: str | None) -> int:
        """Return the length of a judge's prompt about `prompt`; an empty response ("") leaves an empty block."""
        return self._once(
            (template.name, prompt.id, thinking, *sorted(values.items(), key=lambda item: item[0])),
            lambda: len(self._tokenizer.encode(template.render(prompt=prompt.messages, **values), thinking=thinking)),
        )

    def opening(self, chat_request: ChatRequest) -> int:
        """Return the length of the opening of the assistant's turn; the choice that follows is one token."""
        return (
            len(self._tokenizer.encode_text(chat_request.opening + chat_request.choices[0])) - 1
            if chat_request.choices
            else 0
        )

    def text(self, text: str) -> int:
        return len(self._tokenizer.encode_text(text))

    def _once(self, key: Hashable, measure: Callable[[], int]) -> int:
        if key not in self._known:
            self._known[key] = measure()
        return self._known[key]


def sampling_requests(
    by: str, prompts: Sequence[Prompt], lengths: Lengths, *, max_tokens: int, n: int = 1
) -> list[Requests]:
    """Return the requests that sample `n` responses to each prompt."""
    chat_request = ChatRequest((), max_tokens=max_tokens, n=n)
    return [Requests(by, lengths.prompts(prompts), chat_request=chat_request)] if prompts else []


def forward_requests(
    by: str, prompts: Sequence[Prompt], lengths: Lengths, *, max_tokens: int, times: int = 1
) -> list[Requests]:
    """Return the requests for `times` forward passes over each prompt with a response of `max_tokens`."""
    return [Requests(by, lengths.prompts(prompts), rest=max_tokens, times=times)] if prompts else []
