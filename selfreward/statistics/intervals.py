"""Confidence intervals for a mean over prompts: one value per prompt, prompts drawn independently.

Which method, and why (`benchmarks/interval_coverage.py` simulates what is shipped here):

* `clopper_pearson`: binary rates. Its coverage holds for every rate, also near 0 and 1, where pass rates and truncation
  rates often lie; there the coverage of Wilson's interval falls to 83-85 %, at n = 4 as at n = 128.
* `bounded`: the values have known bounds, and fewer than 30 of them lie outside the densest tenth of these bounds.
  Unobserved values may then lie far away, and resampling the observed ones is too optimistic: with 3 % discordant
  prompts and ties otherwise, the bootstrap-t covers 21 % at n = 8 and 89 % at n = 128. So this method is used for every
  sample of 30 or less, and for larger ones while nearly all values are equal; exact ties are not needed.
* `bootstrap_t`: otherwise, 8 <= n < 400. The asymmetric quantiles of the studentised mean suit skewed values (lengths).
* `t`: n >= 400, and n < 8 without bounds.
* `no_variance`: no bounds, and all values equal. A point, since nothing is known about its error; metrics have the mean
  alone (`without_a_point`).

Limits of the coverage (95 % intervals, 4,000 simulated samples each, standard error 0.4 percentage points):

* Without bounds and with a long tail, a small sample contains no value of the tail: log-normal lengths 89 % at n = 4,
  92 % at n = 8, 94 % for n >= 32, and nearly all misses lie on one side. Differences of such lengths: 93-94 % up to
  n = 128.
* `bootstrap_t` and `t` with bounds: 94-96 %, but a rare outcome far from a wide cluster is no longer allowed for once
  30 values lie outside a tenth of the bounds: 1 % of zeros among values of 0.50 +- 0.05 gives 91 % at n = 128.
* `bounded` and `clopper_pearson` are conservative: they cover 95-100 %, and are wide for small samples. Their
half-width
  relative to 1.96 true standard errors: wins, ties and losses .3 .4 .3 1.0 times at n = 8 and 1.1 at n = 32; values of
  0.50 +- 0.05 5 and 3 times; lengths of a tenth of their limit 3 and 2 times.
* Dependent values (several prompts made from one document) invalidate all of them.

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
CLUSTER_SHARE = 0.1


def mean_interval(
    values: ArrayLike, *, level: float = 0.95, seed: int = 0, bounds: tuple[float, float] | None = None
) -> Interval:
    """Return a two-sided interval for the mean; each side misses with a nominal probability of (1 - level) / 2.

    `values` has one number per prompt, shape (n,); `bounds` are limits that no value can exceed, if there are any.
    Without bounds, values that are all equal give a point (`no_variance`), since nothing is known about other possible
    values. Raises ValueError for no values, for one value without bounds, and for values that are not finite or
    outside the bounds.
    """
    x = _checked(values, level, bounds)
    # Clipped, because the mean of equal values may be rounded beyond them.
    n, mean = len(x), float(np.clip(x.mean(), x[0], x[-1]))
    if bounds is not None and is_sparse(x, bounds):
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


def without_a_point(interval: Interval) -> Interval | float:
    """Return the mean alone if the interval has no width, which would claim that it is exact: all values are equal, or
    the complete interval was clipped to an end of the range."""
    return interval.mean if interval.low == interval.high else interval


def paired_interval(
    a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0, bounds: tuple[float, float] | None = None
) -> Interval:
    """Return an interval for the mean of `a` - `b`, both of shape (n,), values of the same prompts in the same order.

    `bounds` apply to both `a` and `b`. Raises as `mean_interval` does, and ValueError for different lengths.
    """
    a_P, b_P = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a_P.shape != b_P.shape:
        raise ValueError(f"paired_interval: {a_P.shape} values against {b_P.shape}; pairs need equal lengths")
    width = None if bounds is None else bounds[1] - bounds[0]
    return mean_interval(a_P - b_P, level=level, seed=seed, bounds=None if width is None else (-width, width))


def rate_interval(outcomes: Sequence[bool], *, level: float = 0.95) -> Interval:
    """Return Clopper and Pearson's interval for the share of true outcomes, one per prompt; it covers at least `level`.

    Raises NotEnoughDataError for no outcomes.
    """
    n, num_true = len(outcomes), sum(map(bool, outcomes))
    if n == 0:
        raise NotEnoughDataError("rate_interval: no outcomes; at least one is needed")
    tail = (1 - level) / 2
    low, high = _lowest_rate(num_true, n, tail), 1 - _lowest_rate(n - num_true, n, tail)
    return Interval(mean=num_true / n, low=low, high=high, num_units=n, level=level, method="clopper_pearson")


@lru_cache(maxsize=1024)
def _lowest_rate(num_true: int, n: int, tail: float) -> float:
    """Return the rate q at which P(Binomial(n, q) >= num_true) = tail, by bisection; 0 when no outcome is true."""
    if num_true == 0:
        return 0.0
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(num_true, n + 1)
    log_choose = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    low, high = 0.0, num_true / n
    for _ in range(60):
        q = (low + high) / 2
        probability = np.exp(log_choose + k * math.log(q) + (n - k) * math.log1p(-q)).sum()
        low, high = (q, high) if probability < tail else (low, q)
    return low


@lru_cache(maxsize=256)
def student_quantile(p: float, df: int) -> float:
    """Return the p-quantile of Student's t with `df` degrees of freedom, to about six digits."""
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
        raise ValueError(f"interval: level {level}; it must lie between 0 and 1")
    if len(x) == 0 or (len(x) == 1 and bounds is None):
        raise NotEnoughDataError(f"interval: {len(x)} values; at least two are needed, or one when bounds are known")
    if not np.isfinite(x).all():
        raise ValueError("interval: a value is not finite; leave out what could not be measured")
    if bounds is not None and (x[0] < bounds[0] - 1e-9 or x[-1] > bounds[1] + 1e-9):
        raise ValueError(f"interval: values from {x[0]} to {x[-1]}; they must lie in {bounds}")
    return x if bounds is None else np.clip(x, *bounds)


def is_sparse(x: Array, bounds: tuple[float, float]) -> bool:
    """Whether fewer than SPARSE_UNITS of the sorted values lie outside the densest tenth of the bounds."""
    # 1e-9: rounding must not move a value outside.
    ends = x + CLUSTER_SHARE * (bounds[1] - bounds[0]) + 1e-9
    largest_cluster = int((np.searchsorted(x, ends, side="right") - np.arange(len(x))).max())
    return len(x) - largest_cluster < SPARSE_UNITS


def _num_resamples(level: float) -> int:
    # Fifty resamples beyond each quantile, so that the quantile itself is stable.
    return int(min(20_000, max(2_000, round(100 / (1 - level)))))


def _bounded(x: Array, level: float, seed: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """Return Gaffke's bounds: the sample with one additional value at the bound, under random weights.

    The weights are Dirichlet(1, ..., 1) over the n + 1 values; the upper limit is the upper quantile of the
    weighted mean with the additional value at the upper bound, the lower limit mirrors it. For values 0 and 1 these
    are exactly the limits of Clopper and Pearson (1934).
    Paper: N. Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
    variable, Mathematical Methods of Statistics 14 (2005); Learned-Miller and Thomas, 1905.06208. That its
    coverage holds for every bounded distribution is a conjecture with much numerical evidence, including ours.
    """
    unique, counts = np.unique(x, return_counts=True)
    weights = _dirichlet_weights((*counts.tolist(), 1), _num_resamples(level), seed)
    tail = (1 - level) / 2
    low = np.quantile(weights @ np.append(unique, bounds[0]), tail)
    high = np.quantile(weights @ np.append(unique, bounds[1]), 1 - tail)
    return float(low), float(high)


@lru_cache(maxsize=1)
def _dirichlet_weights(counts: tuple[int, ...], num_resamples: int, seed: int) -> Array:
    """Return Dirichlet weights of distinct values, shape (num_resamples, len(counts)), summed over equal values."""
    shapes = np.asarray(counts, dtype=np.float64)
    gammas = np.random.default_rng(seed).standard_gamma(shapes, size=(num_resamples, len(counts)))
    return np.asarray(gammas / gammas.sum(axis=1, keepdims=True))


@lru_cache(maxsize=4)
def _resample_counts(n: int, num_resamples: int, seed: int) -> Array:
    """Return the count of each of n values in each resample, shape (num_resamples, n)."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=num_resamples).astype(np.float64)


def _bootstrap_t(x: Array, level: float, seed: int) -> tuple[float, float] | None:
    """Return the lower and upper quantile of (resampled mean - mean) / resampled standard error (Efron 1979).

    Returns None when a quantile is not finite, because too many resamples have no variance.
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
    # An order statistic, since interpolation could compute inf - inf.
    low, high = (float(q) for q in np.quantile(t, [tail, 1 - tail], method="inverted_cdf"))
    return (low, high) if math.isfinite(low) and math.isfinite(high) else None
