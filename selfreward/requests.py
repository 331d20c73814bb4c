"""Requests to engines and chats, and their results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfreward.records import FinishReason, Message, Response
from selfreward.roles import Weights


@dataclass(frozen=True)
class GenerationRequest:
    """`n` samples that continue `prompt_token_ids`, of at most `max_tokens` tokens each.

    Temperature 0 is greedy. Sample i is seeded with `seed` + i. `repetition_penalty` changes the logits of tokens that
    the prompt or the sample already has; after the temperature, `min_p`, `top_k` (0 or less: all) and `top_p` leave out
    tokens, in this order. Log-probabilities of samples are those before all of these. A sample ends with an end token,
    with its first stop string, or after `max_tokens`. With `choice_token_ids`, each sample includes the raw
    log-probabilities of exactly these tokens at the first sampled position. `json_schema` enforces JSON text of that
    schema; an engine that cannot enforce it raises RecipeError.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    choice_token_ids: tuple[int, ...] = ()
    json_schema: Mapping[str, Any] | None = None
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One sample. `token_ids` include the end token, or the tokens of a stop string, when `finish_reason` is "stop";
    `text` does not."""

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    choice_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class ScoreRequest:
    """A request for the log-probabilities of `token_ids`, each conditioned on all tokens before it."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class ChatRequest:
    """`n` replies to a conversation; reply i is seeded with `seed` + i. Temperature 0 is greedy.

    With `choices`, texts of one token each, a reply ends before one of them and includes their log-probabilities there:
    directly after `opening`, or, with `max_tokens` > 0, after at most that many tokens of free text and then `opening`.
    Without choices, a reply is at most `max_tokens` of free text. `json_schema` enforces its form.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    opening: str = ""
    choices: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Reply:
    """One reply. `skipped` is the reason why the request was not sent or not served; all else is then empty.

    `choice_logprobs` are the raw natural log-probabilities of `choices`, -inf for one that was not returned. `text` is
    the free text. Token fields are empty for a model that does not return its tokens.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    choice_logprobs: tuple[float, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] | None = None
    skipped: str | None = None


def response_record(
    request: GenerationRequest, sample: Sample, *, id: str, prompt_id: str, model: Weights, draw: int = 0
) -> Response:
    """Return the record of a sample: sample number `draw` of a request for a prompt."""
    return Response(
        id, prompt_id, request.prompt_token_ids, sample.token_ids, sample.token_logprobs, sample.text,
        sample.finish_reason, request.seed + draw, model.id,
    )  # fmt: skip
