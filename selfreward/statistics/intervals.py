"""Confidence intervals for a mean over prompts: one value per prompt, prompts drawn independently.

Which method, and why (`benchmarks/interval_coverage.py` simulates what is shipped here):

* `wilson`: rates of yes and no.
* `bounded`: the values have known bounds, and they are few (n < 8) or sparse: fewer than 30 differ from the most
  common value, which at least a fifth of them share. Ties and unchanged prompts make such samples, and resampling
  them promises too much: with 3 % discordant prompts the bootstrap-t covers 21 % at n = 8 and 89 % at n = 128.
* `bootstrap_t`: 8 <= n < 400. The asymmetric quantiles of the studentised mean follow skewed values (lengths).
* `t`: n >= 400, and n < 8 without bounds.

Where coverage gives way (95 % intervals, 4,000 simulated samples each, standard error 0.4 points):

* Without bounds and with a long tail, a small sample has not seen the tail: log-normal lengths 89 % at n = 4, 92 % at
  n = 8, 94 % from 32 on, and nearly all misses lie on one side. Differences of such lengths: 93-94 % up to n = 128.
* `wilson` holds its level on average, not for every rate: 91-99 % at n = 4, 94-98 % from n = 8 on, and with few
  prompts all its misses are on one side, so a one-sided reading of it errs up to 6 % of the time instead of 2.5 %.
* `bounded` errs on the other side: it covers 95-100 %, and where the values fill little of their bounds (lengths) it
  is several times wider than need be.
* `bootstrap_t` and `t` with bounds: 94-98 %.
* Values that depend on each other (several prompts made of one document) break all of them.

Every interval is a function of the multiset of values and of `seed` alone; the order of the prompts does not matter.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selfreward.records import Interval
from selfreward.statistics import NotEnoughDataError

Array = NDArray[np.float64]

SMALL_SAMPLE = 8
LARGE_SAMPLE = 400
SPARSE_UNITS = 30
SPARSE_MODE_SHARE = 0.2


def mean_interval(
    values: ArrayLike, *, level: float = 0.95, seed: int = 0, bounds: tuple[float, float] | None = None
) -> Interval:
    """Two-sided interval for the mean; each side misses with probability (1 - level) / 2.

    `values` has one number per prompt, shape (n,); `bounds` are limits that no value can pass, if there are any.
    Without bounds, values that are all equal give a point (`no_variance`): nothing is known about what else could
    have come. Raises ValueError for no values, for one value without bounds, and for values that are not finite or
    outside the bounds.
    """
    x = _checked(values, level, bounds)
    n, mean = len(x), float(x.mean())
    if bounds is not None and _is_sparse(x):
        low, high, method = *_bounded(x, level, seed, bounds), "bounded"
    elif x[0] == x[-1]:
        low, high, method = mean, mean, "no_variance"
    else:
        method = "bootstrap_t" if SMALL_SAMPLE <= n < LARGE_SAMPLE else "t"
        quantiles = _bootstrap_t(x, level, seed) if method == "bootstrap_t" else None
        if quantiles is None:
            t = student_quantile((1 + level) / 2, n - 1)
            quantiles, method = (-t, t), "t"
        standard_error = float(x.std(ddof=1)) / math.sqrt(n)
        low, high = mean - quantiles[1] * standard_error, mean - quantiles[0] * standard_error
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(mean=mean, low=min(low, mean), high=max(high, mean), num_units=n, level=level, method=method)


def paired_interval(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0, bounds: tuple[float, float] | None = None
) -> Interval:
    """Interval for the mean of `a` - `b`, both of shape (n,), values of the same prompts in the same order.

    `bounds` are those of `a` and of `b`. Raises as `mean_interval` does, and ValueError for different lengths.
    """
    a_P, b_P = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a_P.shape != b_P.shape:
        raise ValueError(f"paired_interval: {a_P.shape} values against {b_P.shape}; pairs need equal lengths")
    width = None if bounds is None else bounds[1] - bounds[0]
    return mean_interval(a_P - b_P, level=level, seed=seed, bounds=None if width is None else (-width, width))


def rate_interval(outcomes: Sequence[bool], *, level: float = 0.95) -> Interval:
    """Wilson's interval (1927) for the share of true outcomes, one per prompt. Raises NotEnoughDataError for none."""
    n = len(outcomes)
    if n == 0:
        raise NotEnoughDataError("rate_interval: no outcomes; at least one is needed")
    p, z = sum(map(bool, outcomes)) / n, NormalDist().inv_cdf((1 + level) / 2)
    # |p - q| <= z sqrt(q (1 - q) / n), solved for q
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half_width = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = min(max(0.0, centre - half_width), p), max(min(1.0, centre + half_width), p)
    return Interval(mean=p, low=low, high=high, num_units=n, level=level, method="wilson")


@lru_cache(maxsize=256)
def student_quantile(p: float, df: int) -> float:
    """The p-quantile of Student's t with `df` degrees of freedom, to about six digits."""
    if df > 10_000:
        return NormalDist().inv_cdf(p)
    # With t = sqrt(df) tan(a), the density of a on (-pi/2, pi/2) is proportional to cos(a)^(df - 1).
    angles = np.linspace(-np.pi / 2, np.pi / 2, 20_001)
    density = np.clip(np.cos(angles), 0.0, None) ** (df - 1)
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(df) * math.tan(float(np.interp(p, cumulative / cumulative[-1], angles)))


def _checked(values: ArrayLike, level: float, bounds: tuple[float, float] | None) -> Array:
    x = np.sort(np.asarray(values, dtype=np.float64).ravel())
    if not 0 < level < 1:
        raise ValueError(f"interval: level {level}; it lies between 0 and 1")
    if len(x) == 0 or (len(x) == 1 and bounds is None):
        raise NotEnoughDataError(f"interval: {len(x)} values; at least two are needed, or one when bounds are known")
    if not np.isfinite(x).all():
        raise ValueError("interval: a value is not finite; leave out what could not be measured")
    if bounds is not None and (x[0] < bounds[0] - 1e-9 or x[-1] > bounds[1] + 1e-9):
        raise ValueError(f"interval: values from {x[0]} to {x[-1]}; they must lie in {bounds}")
    return x


def _is_sparse(x: Array) -> bool:
    n, num_mode = len(x), int(np.unique(x, return_counts=True)[1].max())
    return n < SMALL_SAMPLE or (num_mode >= SPARSE_MODE_SHARE * n and n - num_mode < SPARSE_UNITS)


def _num_resamples(level: float) -> int:
    # Fifty resamples beyond each quantile, so that the quantile itself is stable.
    return int(min(20_000, max(2_000, round(100 / (1 - level)))))


def _bounded(x: Array, level: float, seed: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """Gaffke's bound: the sample joined by one imagined value at the bound, under random weights.

    The weights are Dirichlet(1, ..., 1) over the n + 1 values; the upper limit is the upper quantile of the
    weighted mean with the imagined value at the upper bound, the lower limit mirrors it. For values 0 and 1 these
    are exactly the limits of Clopper and Pearson (1934).
    Paper: N. Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
    variable, Mathematical Methods of Statistics 14 (2005); Learned-Miller and Thomas, 1905.06208. That it holds its
    level for every bounded distribution is a conjecture with much numerical evidence, ours included.
    """
    unique, counts = np.unique(x, return_counts=True)
    rng = np.random.default_rng(seed)
    # Dirichlet weights of equal values add up: gamma variables with their counts as shapes, normalised.
    gammas = rng.standard_gamma(np.append(counts, 1).astype(np.float64), size=(_num_resamples(level), len(unique) + 1))
    weights = gammas / gammas.sum(axis=1, keepdims=True)
    tail = (1 - level) / 2
    low = np.quantile(weights @ np.append(unique, bounds[0]), tail)
    high = np.quantile(weights @ np.append(unique, bounds[1]), 1 - tail)
    return float(low), float(high)


@lru_cache(maxsize=4)
def _resample_counts(n: int, num_resamples: int, seed: int) -> Array:
    """How often each of n values stands in each resample, shape (num_resamples, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=num_resamples).astype(np.float64)


def _bootstrap_t(x: Array, level: float, seed: int) -> tuple[float, float] | None:
    """Lower and upper quantile of (resampled mean - mean) / resampled standard error (Efron 1979).

    None when a quantile is not finite, because too many resamples have no variance.
    """
    n = len(x)
    counts = _resample_counts(n, _num_resamples(level), seed)
    centred = x - x.mean()
    scale = float(np.abs(centred).max())
    mean = counts @ (centred / scale) / n
    variance = (counts @ (centred / scale) ** 2 / n - mean**2) * n / (n - 1)
    variance[variance < 1e-12] = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where((variance == 0) & (np.abs(mean) < 1e-12), 0.0, mean / np.sqrt(variance / n))
    tail = (1 - level) / 2
    # An order statistic, not an interpolation, which could meet inf - inf.
    low, high = (float(q) for q in np.quantile(t, [tail, 1 - tail], method="inverted_cdf"))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
