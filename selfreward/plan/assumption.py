"""An assumed number of an estimate."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Assumption:
    """An assumed number at the fast and at the slow end of the estimate."""

    fast: float
    slow: float

    def at(self, *, fast: bool) -> float:
        return self.fast if fast else self.slow
