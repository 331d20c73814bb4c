"""What engines and chats are asked, and what they give back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selfreward.records import FinishReason, Message, Response
from selfreward.roles import Weights


@dataclass(frozen=True)
class GenerationRequest:
    """`n` draws that continue `prompt_token_ids`, `max_tokens` at most each.

    Temperature 0 is greedy. Draw i is seeded with `seed` + i. When `choice_token_ids` is given, the raw
    log-probabilities of exactly these tokens at the first sampled position come back with each sample.
    `json_schema` enforces a JSON text of that form; an engine that cannot raises RecipeError.
    """

    prompt_token_ids: tuple[int, ...]
    max_tokens: int
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    choice_token_ids: tuple[int, ...] = ()
    json_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sample:
    """One draw. `token_ids` include the end token when `finish_reason` is "stop"; `text` does not."""

    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason
    choice_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class ScoreRequest:
    """Asks for the log-probabilities of `token_ids`, each given all tokens before it."""

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class ChatRequest:
    """`n` replies to a conversation, for which draw i is seeded with `seed` + i. Temperature 0 is greedy.

    With `choices`, texts that are one token each, a reply ends right before one of them, and their log-probabilities
    there come back: at once, after `opening` alone; or, with `max_tokens` > 0, after that many tokens of free text at
    most and then `opening`. Without choices, `max_tokens` of free text are all of it. `json_schema` enforces its form.
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
    """One draw. `skipped` is the reason why the request was not sent at all or not served; all else is then empty.

    `choice_logprobs` belong to `choices`, natural and raw, -inf for one that is out of sight. `text` is the free text.
    Token fields are empty for a model whose tokens are not ours to see.
    """

    text: str = ""
    finish_reason: FinishReason | None = None
    choice_logprobs: tuple[float, ...] = ()
    prompt_token_ids: tuple[int, ...] = ()
    token_ids: tuple[int, ...] = ()
    token_logprobs: tuple[float, ...] | None = None
    skipped: str | None = None


def drawn(
    request: GenerationRequest, sample: Sample, *, id: str, prompt_id: str, model: Weights, draw: int = 0
) -> Response:
    """The record of a sample: draw `draw` of a request about a prompt."""
    return Response(
        id, prompt_id, request.prompt_token_ids, sample.token_ids, sample.token_logprobs, sample.text,
        sample.finish_reason, request.seed + draw, model.id,
    )  # fmt: skip
