"""KL divergence between two models."""

import math
from collections.abc import Sequence

from selfreward.records import Interval
from selfreward.statistics.intervals import mean_interval


def sequence_logprob(token_logprobs: Sequence[float]) -> float:
    """Return log p(response | prompt) in nats: the sum of the token log-probabilities."""
    return math.fsum(token_logprobs)


def kl_interval(p_logprobs: Sequence[float], q_logprobs: Sequence[float], *, seed: int = 0) -> Interval:
    """Return KL(p || q) in nats per response, from one response to each prompt, sampled from p at temperature 1.

    `p_logprobs[i]` and `q_logprobs[i]` are the log-probabilities of response i under p and q. The estimator is the
    mean over prompts of

        log p(y_i | x_i) - log q(y_i | x_i)

    which is unbiased, and whose standard error is sd(log p - log q) / sqrt(n). For close models that standard deviation
    is about sqrt(2 KL), larger than KL itself: an interval that reaches below zero means that the divergence is too
    small for this many responses, not that it is negative. For responses that were drawn greedily or at another
    temperature the same mean is a log-ratio, not a KL divergence. Raises NotEnoughDataError for fewer than two
    responses.
    """
    if len(p_logprobs) != len(q_logprobs):
        raise ValueError(f"kl_interval: {len(p_logprobs)} responses under p, {len(q_logprobs)} under q")
    return mean_interval([p - q for p, q in zip(p_logprobs, q_logprobs, strict=True)], seed=seed)
