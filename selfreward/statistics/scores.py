"""The mean of scores. An unscored judgment is missing data everywhere and never enters a mean."""

import math
from collections import defaultdict
from collections.abc import Iterable

from selfreward.records import Judgment

SAME_SCORE = 1e-9
"""Means that differ by no more than this are equal up to rounding."""


def mean_scores(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Return the mean over the judge's overall scored draws (`part` is ""), by response id; unscored responses are
    absent.

    For a judge that compares, each order against each other response has equal weight, however many of its draws could
    be parsed; otherwise position bias would not cancel. Exactly rounded, so that it does not depend on the order of the
    judgments. `score_table.mean_by_response` computes the same for a table.
    """
    draws: defaultdict[str, defaultdict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    for judgment in judgments:
        if judgment.score is not None and judgment.part == "":
            draws[judgment.response_id][judgment.other_id, judgment.shown_first].append(judgment.score)
    return {response_id: _mean([_mean(order) for order in orders.values()]) for response_id, orders in draws.items()}


def preferred(score: float | None, other: float | None) -> float | None:
    """Return 1 if `score` is higher, 0 if it is lower, 0.5 if both are equal, and None if one is missing."""
    if score is None or other is None:
        return None
    if score == other or abs(score - other) <= SAME_SCORE:  # -inf - -inf is nan
        return 0.5
    return float(score > other)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
