"""The one rule for the mean of scores. An unscored judgment is missing data everywhere: it never enters a mean."""

import math
from collections import defaultdict
from collections.abc import Iterable

from selfreward.records import Judgment

SAME_SCORE = 1e-9
"""Means that are exactly equal may be this far apart by rounding."""


def mean_scores(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Mean over the judge's own scored draws (`part` is ""), by response id. A response without one is absent.

    Of a judge that compares, each order against each other response counts the same, however many of its draws could
    be read: else the bias of the position would not cancel. Exactly rounded, so that the order of the judgments cannot
    change a bit of it. `score_table.mean_by_response` is the same of a whole table.
    """
    draws: defaultdict[str, defaultdict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for judgment in judgments:
        if judgment.score is not None and judgment.part == "":
            draws[judgment.response_id][judgment.other_id, judgment.shown_first].append(judgment.score)
    return {response_id: _mean([_mean(order) for order in orders.values()]) for response_id, orders in draws.items()}


def preferred(score: float | None, other: float | None) -> float | None:
    """1 for the higher mean score, 0 for the lower one, 0.5 for equal ones; None when one is missing."""
    if score is None or other is None:
        return None
    if score == other or abs(score - other) <= SAME_SCORE:  # two that are -inf have no difference
        return 0.5
    return float(score > other)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
