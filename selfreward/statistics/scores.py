"""The one rule for the mean of scores. An unscored judgment is missing data everywhere: it never enters a mean."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping

from selfreward.records import Judgment

SAME_SCORE = 1e-9
"""Means that are exactly equal may be this far apart by rounding."""


def mean_scores(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Mean over the judge's own scored draws (`part` is ""), by response id. A response without one is absent.

    Of a judge that compares, each order against each other response counts the same, however many of its draws could
    be read: else the bias of the position would not cancel. A comparison of which only one of two orders has a score
    is left out, for the same reason. Exactly rounded, so that the order of the judgments cannot change a bit of it.
    """
    draws: defaultdict[str, defaultdict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for judgment in judgments:
        if judgment.part == "":
            order = draws[judgment.response_id][judgment.other_id, judgment.shown_first]
            order += [] if judgment.score is None else [judgment.score]
    means = {response_id: _balanced_mean(orders) for response_id, orders in draws.items()}
    return {response_id: mean for response_id, mean in means.items() if mean is not None}


def _balanced_mean(orders: Mapping[tuple[str, str], list[float]]) -> float | None:
    """Of the scores of one response by (other response, who was shown first); "" twice where it was judged alone."""
    one_sided = {other for (other, _), scores in orders.items() if other and not scores}
    means = [_mean(scores) for (other, _), scores in orders.items() if scores and other not in one_sided]
    return _mean(means) if means else None


def preferred(score: float | None, other: float | None) -> float | None:
    """1 for the higher mean score, 0 for the lower one, 0.5 for equal ones; None when one is missing."""
    if score is None or other is None:
        return None
    if score == other or abs(score - other) <= SAME_SCORE:  # two that are -inf have no difference
        return 0.5
    return float(score > other)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
