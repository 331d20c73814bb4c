"""Log-probabilities of responses under a model, for the judges that score by them."""

import math
from collections.abc import Sequence

from selfreward.parts import Engine
from selfreward.readers import Unscored, without_reasoning
from selfreward.records import Checkpoint, Response
from selfreward.requests import ScoreRequest


def score_request(response: Response, *, context_tokens: int) -> ScoreRequest | Unscored:
    """Return the request for a response's sampled tokens, the end token included, or the reason why there is none."""
    if not without_reasoning(response.text) or not response.token_ids:
        return Unscored.EMPTY_RESPONSE
    if len(response.prompt_token_ids) + len(response.token_ids) > context_tokens:
        return Unscored.TOO_LONG
    return ScoreRequest(response.prompt_token_ids, response.token_ids)


def log_probabilities(engine: Engine, model: Checkpoint, requests: Sequence[ScoreRequest]) -> list[float]:
    """Return log pi(y|x) in nats for each request: one load and one engine call. Raises EngineError."""
    if not requests:
        return []
    engine.load(model)
    return [math.fsum(token_logprobs) for token_logprobs in engine.score(requests)]
