"""The curve of over-optimisation: gain against the distance from the model that the run began with.

    d = sqrt(KL(M_t || M_0)),     R(d) = d (a - b log d),     its top at d* = exp(a / b - 1)

Paper: 2210.10760, section 3.1 (the form for reinforcement learning, which does not hold close to d = 0).
Differs: there it was fitted to thousands of steps against a frozen reward model; here to a few checkpoints of a loop
whose judge changes. So it describes what was seen, and no decision rests on it.
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
    """Gain per sqrt(nat) is `a` at d = 1; `b` is how fast it falls with log d."""

    a: float
    b: float

    @property
    def peak(self) -> float | None:
        """d*, where the gain would be largest; None when it only rises with the distance (b <= 0)."""
        exponent = self.a / self.b - 1 if self.b > 0 else math.inf
        return math.exp(exponent) if exponent < 700 else None

    def at(self, distances: ArrayLike) -> Array:
        """R(d) for d >= 0, of the same shape; 0 at d = 0."""
        return np.asarray(_columns(np.asarray(distances, dtype=np.float64)) @ np.array([self.a, self.b]))


def distance(kl_nats: float) -> float:
    """d in sqrt(nats). An estimate of the divergence may fall below 0, which no divergence does."""
    return math.sqrt(max(kl_nats, 0.0))


def fit(distances: Sequence[float], gains: Sequence[float]) -> Fit | None:
    """By least squares; None with fewer than MIN_POINTS points away from d = 0, or when their distances are alike."""
    d, gain = np.asarray(distances, dtype=np.float64), np.asarray(gains, dtype=np.float64)
    away = d > 0  # at d = 0 the form is 0, whatever a and b are
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
    """Where 95 % of the curves lie when the gains are drawn anew, normal with standard `errors`; None without a fit.

    The distances are taken as known, and the gains as independent of each other; that the form is wrong is not in it.
    """
    if fit(distances, gains) is None:
        return None
    drawn = np.random.default_rng(seed).normal(gains, errors, size=(_NUM_DRAWS, len(gains)))
    columns = _columns(np.asarray(distances, dtype=np.float64))
    coefficients = np.linalg.pinv(columns) @ drawn.T  # (2, draws); rows at d = 0 are zero and add nothing
    curves = _columns(np.asarray(at, dtype=np.float64)) @ coefficients
    low, high = np.quantile(curves, [0.025, 0.975], axis=-1)
    return low, high


def _columns(d: Array) -> Array:
    """R = a d + b (-d log d): linear in a and b. Shape (..., 2)."""
    return np.stack([d, -d * np.log(np.where(d > 0, d, 1.0))], axis=-1)
