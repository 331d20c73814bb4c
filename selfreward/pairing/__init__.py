"""Which responses become a preference pair: one file per strategy, the rules for all of them in `rules.py`."""

from typing import assert_never

from selfreward import recipe
from selfreward.pairing.rules import DropReason
from selfreward.parts import PairSelector

__all__ = ["DropReason", "build"]


def build(section: recipe.PairingSection) -> PairSelector:
    match section:
        case recipe.BestVsWorst():
            from selfreward.pairing.best_vs_worst import BestVsWorst

            return BestVsWorst(section)
        case recipe.LengthControlled():
            from selfreward.pairing.length_controlled import LengthControlled

            return LengthControlled(section)
        case _:
            assert_never(section)
