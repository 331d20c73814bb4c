"""What judgments say together: mean scores, and how far a judge can be reproduced.

An unscored judgment is missing data everywhere: it never enters a mean.
"""

import math
from collections import defaultdict
from collections.abc import Iterable

from selfreward.records import Judgment


def mean_scores(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Mean over the scored draws, by response id. A response without one is absent.

    Exactly rounded, so that the order of the judgments cannot change a bit of it.
    """
    draws: defaultdict[str, list[float]] = defaultdict(list)
    for judgment in judgments:
        if judgment.score is not None:
            draws[judgment.response_id].append(judgment.score)
    return {response_id: _mean(scores) for response_id, scores in draws.items()}


def reliability(judgments: Iterable[Judgment]) -> float | None:
    """ICC of the mean score, in [0, 1]: which share of the differences between responses to a prompt is reproducible.

    r = B / (B + W / J), where W is the variance between draws on one response and B the variance between the true
    means of a prompt's responses: what their observed means vary, less W / J, which drawing again explains.
    B and W are pooled over prompts before they are divided, because a ratio of four responses is mostly noise.

    0 for a judge that draws at random, and for one that gives every response the same score; close to 1 for one that
    repeats itself. It says nothing of whether the judge is right. None when it cannot be known: without
    a response that has two scored draws, or without a prompt that has two scored responses.
    """
    # In one pass that keeps the scores alone: the texts of all judgments of an iteration need not fit into memory.
    draws_of: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for judgment in judgments:
        if judgment.score is not None:
            draws_of[judgment.prompt_id][judgment.response_id].append(judgment.score)

    every = [scores for by_response in draws_of.values() for scores in by_response.values()]
    freedom_within = sum(len(scores) - 1 for scores in every)
    several = [list(by_response.values()) for _, by_response in sorted(draws_of.items()) if len(by_response) >= 2]
    freedom_between = sum(len(responses) - 1 for responses in several)
    if freedom_within == 0 or freedom_between == 0:
        return None
    within = math.fsum(_squares(scores) for scores in every) / freedom_within  # W
    observed = math.fsum(_squares([_mean(scores) for scores in responses]) for responses in several) / freedom_between
    # W / J, J being the number of scored draws, which may differ between responses.
    explained = within * (
        math.fsum((len(responses) - 1) * _mean([1 / len(scores) for scores in responses]) for responses in several)
        / freedom_between
    )
    between = max(observed - explained, 0.0)  # B; below 0 it is 0 and noise
    return between / (between + explained) if between > 0 else 0.0


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _squares(values: list[float]) -> float:
    """The sum of squared distances from the mean."""
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values)
