"""Intervals for a smooth function of means over prompts, such as a ratio or a correlation."""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import LARGE_SAMPLE, SMALL_SAMPLE, student_quantile

Array = NDArray[np.float64]
Smooth = Callable[[Array], tuple[Array, Array]]
"""From means of shape (B, K) to values of shape (B,) and gradients of shape (B, K)."""

NUM_RESAMPLES = 2_000


def smooth_limits(sums_PK: Array, function: Smooth, *, level: float, seed: int) -> tuple[float, float, str]:
    """Return the lower and upper limit for `function` of the mean over prompts, and the method.

    Bootstrap-t over prompts (Efron 1979): each resample has its own standard error by the delta method. From
    LARGE_SAMPLE prompts on, and below SMALL_SAMPLE, Student's quantiles instead. `function` should be on a scale where
    its error is nearly normal: the logarithm of a ratio, atanh of a correlation. The rows of `sums_PK` must be in a
    fixed order (sorted ids), since the limits depend on it. Raises NotEnoughDataError for fewer than two prompts.
    """
    n = len(sums_PK)
    if n < 2:
        raise NotEnoughDataError(f"{n} prompts; an interval needs at least two")
    value, error = (float(x[0]) for x in _value_and_error(np.full((1, n), 1 / n), sums_PK, function))
    if error == 0:
        return value, value, "no_variance"
    if SMALL_SAMPLE <= n < LARGE_SAMPLE:
        with np.errstate(divide="ignore", invalid="ignore"):
            value_B, error_B = _value_and_error(_resample_weights(n, seed), sums_PK, function)
            t_B = np.where(value_B == value, 0.0, (value_B - value) / error_B)
        t_B = t_B[~np.isnan(t_B)]
        tail = (1 - level) / 2
        low, high = (float(q) for q in np.quantile(t_B, [tail, 1 - tail], method="inverted_cdf"))
        if math.isfinite(low) and math.isfinite(high):
            return value - high * error, value - low * error, "bootstrap_t"
    t = student_quantile((1 + level) / 2, n - 1)
    return value - t * error, value + t * error, "t"


@lru_cache(maxsize=4)
def _resample_weights(n: int, seed: int) -> Array:
    """Return the weight of each of n prompts in each resample, shape (NUM_RESAMPLES, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=NUM_RESAMPLES) / n


def _value_and_error(weights_BP: Array, sums_PK: Array, function: Smooth) -> tuple[Array, Array]:
    """Return the function of weighted means, and its standard error, both of shape (B,)."""
    n, num_sums = sums_PK.shape
    mean_BK = weights_BP @ sums_PK
    value_B, gradient_BK = function(mean_BK)
    variance_B = -((gradient_BK * mean_BK).sum(axis=1) ** 2)
    for i in range(num_sums):
        for j in range(num_sums):
            variance_B += gradient_BK[:, i] * gradient_BK[:, j] * (weights_BP @ (sums_PK[:, i] * sums_PK[:, j]))
    variance_B[variance_B < 1e-12 * np.abs(gradient_BK * mean_BK).sum(axis=1) ** 2] = 0.0
    return value_B, np.sqrt(variance_B / (n - 1))
