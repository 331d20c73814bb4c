"""How small a gain a number of held-out prompts can tell from none, before a run is paid for.

The monitor stops at a plateau when the upper bound of the gain lies below delta. At a true gain of 0 it does so in one
look with the wanted power when

    delta >= (z(1 - alpha / horizon) + z(power)) sd / sqrt(n),     sd = sqrt((1 - ties) / 4)

since an outcome is 1 or 0, each with probability (1 - ties) / 2, or 0.5.

Paper: 2411.00640, its part on power. Differs: one-sided, at the level that the alpha-spending budget leaves for one
look.

A normal approximation: bounds of few prompts (n < 400) are wider, and adjustment for length costs a little more where
length and outcome go together. Prompts whose responses are the same count as ties.
"""

import math
from statistics import NormalDist

TIE_RATE = 0.4
"""Share of prompts without a difference that is assumed where none was measured."""

POWER = 0.8
"""Share of plateaus that are to be caught in one look."""


def smallest_resolvable_gain(
    num_prompts: int, *, alpha: float, horizon: int = 1, tie_rate: float = TIE_RATE, power: float = POWER
) -> float:
    """The smallest delta for which a plateau of gain 0 is caught in one look with probability `power`; at most 0.5.

    `alpha` is the error probability of the whole run's looks of this kind, `horizon` the number of them.
    """
    return min(0.5, _distance(alpha / horizon, tie_rate, power) / math.sqrt(num_prompts))


def prompts_to_resolve(
    delta: float, *, alpha: float, horizon: int = 1, tie_rate: float = TIE_RATE, power: float = POWER
) -> int:
    """The smallest number of prompts that resolves `delta`."""
    return math.ceil((_distance(alpha / horizon, tie_rate, power) / delta) ** 2)


def _distance(level: float, tie_rate: float, power: float) -> float:
    """(z(1 - level) + z(power)) sd: what lies between a gain of 0 and the smallest delta, for one prompt."""
    z = NormalDist().inv_cdf
    return (z(1 - level) + z(power)) * math.sqrt((1 - tie_rate) / 4)
