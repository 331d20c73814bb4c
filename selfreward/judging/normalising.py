"""Scores of several judges or criteria, made comparable."""

import math
from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")

# A spread below this share of the largest value is what rounding left of equal values, and no difference.
_ROUNDING = 1e-12


def z_scores(values: Mapping[K, float]) -> dict[K, float]:
    """(value - mean) / population standard deviation, all finite; 0 everywhere when the values do not spread.

    Sums are exactly rounded, so that the order of the values cannot change a bit of the result.
    """
    if not values:
        return {}
    mean = math.fsum(values.values()) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values.values()) / len(values))
    if spread <= _ROUNDING * max(map(abs, values.values())):
        return dict.fromkeys(values, 0.0)
    return {key: (value - mean) / spread for key, value in values.items()}
