"""Records that an evaluation stores in addition to responses and comparisons."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ResponseLogprob:
    """log p(response | prompt) in nats under one checkpoint, over all `num_tokens` tokens of the response."""

    response_id: str
    prompt_id: str
    checkpoint_id: str
    logprob: float
    num_tokens: int
