"""The over-optimisation curve: gain against the distance from the initial model.

    d = sqrt(KL(M_t || M_0)),     R(d) = d (a - b log d),     maximum at d* = exp(a / b - 1)

Paper: 2210.10760, section 3.1 (the form for reinforcement learning, which does not hold close to d = 0).
Differs: there it was fitted to thousands of steps against a frozen reward model; here to a few checkpoints of a loop
whose judge changes. So it is descriptive, and no decision is based on it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

MIN_POINTS = 4
_NUM_DRAWS = 1000


@dataclass(frozen=True)
class Fit:
    """Coefficients of the curve: `a` is the gain per sqrt(nat) at d = 1, `b` its decrease with log d."""

    a: float
    b: float

    @property
    def peak(self) -> float | None:
        """d*, the distance of the largest gain; None when the gain only rises with the distance (b <= 0)."""
        exponent = self.a / self.b - 1 if self.b > 0 else math.inf
        return math.exp(exponent) if exponent < 700 else None

    def at(self, distances: ArrayLike) -> Array:
        """Return R(d) for d >= 0, of the same shape; 0 at d = 0."""
        return np.asarray(_columns(np.asarray(distances, dtype=np.float64)) @ np.array([self.a, self.b]))


def distance(kl_nats: float) -> float:
    """Return d in sqrt(nats). A negative estimate of the divergence counts as 0."""
    return math.sqrt(max(kl_nats, 0.0))


def fit(distances: Sequence[float], gains: Sequence[float]) -> Fit | None:
    """Fit by least squares; None with fewer than MIN_POINTS points away from d = 0, or with nearly equal distances."""
    d, gain = np.asarray(distances, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    away = d > 0  # at d = 0 the curve is 0 for all a and b
    if away.sum() < MIN_POINTS:
        return None
    columns = _columns(d[away])
    if np.linalg.cond(columns) > 1e4:
        return None
    a, b = np.linalg.lstsq(columns, gain[away])[0]
    return Fit(float(a), float(b))


def band(
    distances: Sequence[float], gains: Sequence[float], errors: Sequence[float], *, at: ArrayLike, seed: int = 0
) -> tuple[Array, Array] | None:
    """Return the band of 95 % of the curves when gains are resampled, normal with standard `errors`; None without a
    fit.

    The distances are assumed to be known, and the gains independent of each other; misspecification is not included.
    """
    if fit(distances, gains) is None:
        return None
    drawn = np.random.default_rng(seed).normal(gains, errors, size=(_NUM_DRAWS, len(gains)))
    columns = _columns(np.asarray(distances, dtype=np.float64))
    coefficients = np.linalg.pinv(columns) @ drawn.T  # (2, draws); rows at d = 0 are zero
    curves = _columns(np.asarray(at, dtype=np.float64)) @ coefficients
    low, high = np.quantile(curves, [0.025, 0.975], axis=-1)
    return low, high


def _columns(d: Array) -> Array:
    """Return the regressors of R = a d + b (-d log d), linear in a and b. Shape (..., 2)."""
    return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=-1)
