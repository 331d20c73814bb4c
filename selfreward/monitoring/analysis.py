"""Results of the tests in one interim analysis of an iteration, from which the decision is made."""

from dataclasses import dataclass

from selfreward.monitoring.bounds import Bounded


@dataclass(frozen=True)
class Analysis:
    """Results of the tests in one interim analysis; a test that the data do not allow is None."""

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
        """The pass rate difference against the best, or against M_{t-1} if a table has no other."""
        return self.pass_rate_vs_best or self.pass_rate
