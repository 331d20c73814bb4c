"""What the tests of one look at an iteration found: what a decision is made of."""

from dataclasses import dataclass

from selfreward.monitoring.bounds import Bounded


@dataclass(frozen=True)
class Analysis:
    """The tests of one look at one iteration; one that the data do not allow is None."""

    gain: Bounded | None = None
    raw_gain: Bounded | None = None
    gain_vs_best: Bounded | None = None
    self_gain: Bounded | None = None
    pass_rate: Bounded | None = None
    pass_rate_vs_best: Bounded | None = None
    gold: Bounded | None = None
    tau: Bounded | None = None
    failing: Bounded | None = None
    invalid: tuple[str, ...] = ()
    starved: tuple[str, ...] = ()
    trained: bool = True

    @property
    def pass_rate_for_harm(self) -> Bounded | None:
        """Against the best; against M_{t-1} where a table has nothing else."""
        return self.pass_rate_vs_best or self.pass_rate
