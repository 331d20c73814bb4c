"""The mean outcome at equal length: the gain that is not explained by longer responses winning.

The outcomes x of prompts are regressed on z = tanh(length difference / its root mean square), and the value at z = 0
is the adjusted mean:

    x_i = g + b z_i + e_i

Each prompt then gets a pseudo-value; their mean is g and their spread that of the jackknife of g, so that the intervals
of `intervals.py` apply, including the error of b.

Paper: Length-Controlled AlpacaEval (2404.04475, section 3), its minimal form with a length and a model term.
Differs: linear in x instead of logistic, so that it has a closed form and no separation; divided by the root mean
square instead of the standard deviation, because if all responses grew equally tanh would be 1 for every prompt, and
nothing could be estimated; here the interval becomes wide instead, as it should for such data.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from selfreward.records import Interval
from selfreward.statistics.intervals import is_sparse, mean_interval

Array = NDArray[np.float64]
BOUNDS = (0.0, 1.0)


def adjusted_values(values: ArrayLike, length_deltas_tokens: ArrayLike) -> Array | None:
    """Return one value for each prompt, whose mean is the mean outcome at equal length.

    Both arguments have shape (n,), values lie in [0, 1]. Returns None, because the raw outcomes are then better
    evidence, when a length is missing (NaN: a part of the prompts is not the sample), when there is no length
    difference, when fewer than 30 outcomes distinguish the checkpoints (`is_sparse`), or when the line depends on a
    single prompt.
    """
    x, deltas = np.asarray(values, dtype=np.float64), np.asarray(length_deltas_tokens, dtype=np.float64)
    n = len(x)
    if n < 3 or np.isnan(deltas).any() or is_sparse(np.sort(x), BOUNDS) or not deltas.any():
        return None
    z = np.tanh(deltas / np.sqrt(np.mean(deltas**2)))
    spread = float(np.sum((z - z.mean()) ** 2))
    if spread < 1e-9 * n:
        return None
    slope = float(np.sum((z - z.mean()) * x)) / spread
    at_equal_length = float(x.mean()) - slope * float(z.mean())
    residuals = x - at_equal_length - slope * z
    leverage = 1 / n + (z - z.mean()) ** 2 / spread
    if leverage.max() > 1 - 1e-6:
        return None
    # The change of g when prompt i is left out.
    moves = (1 / n - z.mean() * (z - z.mean()) / spread) * residuals / (1 - leverage)
    return np.asarray(at_equal_length + (n - 1) * (moves - moves.mean()))


def adjusted_interval(
    values: ArrayLike, length_deltas_tokens: ArrayLike, *, level: float = 0.95, seed: int = 0
) -> Interval:
    """Return an interval of the mean outcome at equal length, or of the raw mean if `adjusted_values` is None.

    Raises as `mean_interval` does.
    """
    adjusted = adjusted_values(values, length_deltas_tokens)
    if adjusted is None:
        return mean_interval(values, level=level, seed=seed, bounds=BOUNDS)
    return mean_interval(adjusted, level=level, seed=seed)
