"""The smallest gain that a number of held-out prompts can distinguish from none, computed before a run.

The monitor stops at a plateau when the upper bound of the gain lies below delta. At a true gain of 0 it does so in one
analysis with the desired power when

    delta >= (z(1 - alpha / horizon) + z(power)) sd / sqrt(n),     sd = sqrt((1 - ties) / 4)

since an outcome is 1 or 0, each with probability (1 - ties) / 2, or 0.5.

Paper: 2411.00640, its part on power. Differs: one-sided, at the level that the alpha-spending budget allows one
analysis.

The formula is a normal approximation: bounds of few prompts (n < 400) are wider, and length adjustment costs a little
more where length and outcome are correlated. Prompts whose responses are identical count as ties.
"""

import math
from statistics import NormalDist

TIE_RATE = 0.4
"""Assumed share of prompts without a difference, where none was measured."""

POWER = 0.8
"""Desired share of plateaus that are detected in one analysis."""


def smallest_resolvable_gain(
    num_prompts: int, *, alpha: float, horizon: int = 1, tie_rate: float = TIE_RATE, power: float = POWER
) -> float:
    """Return the smallest delta for which a plateau of gain 0 is detected in one analysis with `power`; at most 0.5.

    `alpha` is the error probability of all analyses of this kind in the run, `horizon` their number.
    """
    return min(0.5, _distance(alpha / horizon, tie_rate, power) / math.sqrt(num_prompts))


def prompts_to_resolve(
    delta: float, *, alpha: float, horizon: int = 1, tie_rate: float = TIE_RATE, power: float = POWER
) -> int:
    """Return the smallest number of prompts that resolves `delta`."""
    return math.ceil((_distance(alpha / horizon, tie_rate, power) / delta) ** 2)


def _distance(level: float, tie_rate: float, power: float) -> float:
    """Return (z(1 - level) + z(power)) sd, the smallest resolvable delta for one prompt."""
    z = NormalDist().inv_cdf
    return (z(1 - level) + z(power)) * math.sqrt((1 - tie_rate) / 4)
