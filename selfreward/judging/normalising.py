"""Normalisation of scores of several judges or criteria to a common scale."""

import math
from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")

# A spread below this share of the largest value is rounding error of equal values.
_ROUNDING = 1e-12


def z_scores(values: Mapping[K, float]) -> dict[K, float]:
    """Return (value - mean) / population standard deviation, all finite; all 0 when the values are equal.

    Sums are exactly rounded, so that the order of the values does not change the result in any bit.
    """
    if not values:
        return {}
    mean = math.fsum(values.values()) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values.values()) / len(values))
    if spread <= _ROUNDING * max(map(abs, values.values())):
        return dict.fromkeys(values, 0.0)
    return {key: (value - mean) / spread for key, value in values.items()}
