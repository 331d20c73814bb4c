"""Amounts of work: requests and tokens for the engine, an endpoint, or a reward model."""

from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.chats.endpoint_wire import chat_body, worst_tokens
from selfreward.recipe import EndpointSection
from selfreward.workload import Requests


@dataclass(frozen=True)
class Work:
    """The requests of one stage. A prompt counts once for each request, regardless of its number of samples.

    `num_sequences` counts samples; `max_generated_tokens` is the longest sample. `num_repeated_tokens` counts prompt
    tokens in a prefix shared with another request, which a prefix cache may save. `parts` are the calls of a stage with
    several.
    """

    num_requests: int
    num_prompt_tokens: int
    num_generated_tokens: int = 0
    num_sequences: int = 0
    max_generated_tokens: int = 0
    num_repeated_tokens: int = 0
    parts: tuple["Work", ...] = ()

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + self.num_generated_tokens

    @property
    def calls(self) -> tuple["Work", ...]:
        return self.parts or (self,)


def summed(works: Sequence[Work]) -> Work:
    if len(works) == 1:
        return works[0]
    return Work(
        num_requests=sum(work.num_requests for work in works),
        num_prompt_tokens=sum(work.num_prompt_tokens for work in works),
        num_generated_tokens=sum(work.num_generated_tokens for work in works),
        num_sequences=sum(work.num_sequences for work in works),
        max_generated_tokens=max((work.max_generated_tokens for work in works), default=0),
        num_repeated_tokens=sum(work.num_repeated_tokens for work in works),
        parts=tuple(call for work in works for call in work.calls),
    )


def engine_work(requests: Requests, *, context: int) -> tuple[list[Work], int]:
    """Return the engine calls, and the number of requests that may not fit into the context and would be skipped."""
    chat_request, lengths = requests.chat_request, requests.lengths
    if chat_request is None:
        return [Work(len(lengths), sum(lengths))], 0
    max_prompt_tokens = context - chat_request.max_tokens - (requests.opening_tokens + 1 if chat_request.choices else 0)
    fitted = [min(length, max_prompt_tokens) for length in lengths]
    shared = _num_shared(requests)
    calls = []
    if chat_request.max_tokens:
        calls.append(generated(fitted, [chat_request.max_tokens] * len(fitted), n=chat_request.n, num_repeated=shared))
    if chat_request.choices:
        # The opening follows the free text and a line break, and the choice is one token.
        written = chat_request.max_tokens + 1 if chat_request.max_tokens else 0
        again = [length + written + requests.opening_tokens for length in fitted for _ in range(chat_request.n)]
        repeated = chat_request.n * sum(fitted) if chat_request.max_tokens else shared
        calls.append(generated(again, [1] * len(again), num_repeated=repeated))
    return calls, sum(length > max_prompt_tokens for length in lengths)


def generated(lengths: Sequence[int], max_tokens: Sequence[int], *, n: int = 1, num_repeated: int = 0) -> Work:
    """Return the work of requests with prompts of these lengths, each with `n` samples of maximum length."""
    return Work(
        num_requests=len(lengths),
        num_prompt_tokens=sum(lengths),
        num_generated_tokens=n * sum(max_tokens),
        num_sequences=n * len(lengths),
        max_generated_tokens=max(max_tokens, default=0),
        num_repeated_tokens=num_repeated,
    )


def _num_shared(requests: Requests) -> int:
    """Return the tokens saved when the prefix common to all requests, and that of each prompt, are computed once."""
    common, first_P = requests.num_common, requests.first_P
    computed = common + sum(first - common for first in first_P)
    return max(0, requests.times * sum(first_P) - computed)


def endpoint_work(requests: Requests, section: EndpointSection) -> Work:
    """Return the work of an endpoint, each sample as a separate request: not every server supports several.

    Cached replies are not counted. `num_repeated_tokens` are the prompt tokens that a server with several samples per
    request saves. If `extra_body` removes the token limit, generated tokens are unbounded and counted as 0.
    """
    chat_request, times = requests.chat_request, requests.times - requests.num_cached
    lengths = [first + requests.rest for first in requests.first_P for _ in range(times)]
    if chat_request is None:
        raise ValueError(f"{requests.by}: an endpoint cannot score given tokens")
    _, num_generated = worst_tokens(chat_body(chat_request, section, draw=0))
    return generated(
        lengths * chat_request.n,
        [num_generated] * len(lengths) * chat_request.n,
        num_repeated=(chat_request.n - 1) * sum(lengths),
    )
