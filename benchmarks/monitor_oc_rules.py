"""The shipped rule and three rules in common use, on the same simulated runs; and predictions of normal theory.

* fixed: three iterations, regardless of measurements.
* mean: stop at the first iteration whose mean outcome against the previous checkpoint is 0.5 or less.
* patience: stop at the first iteration whose score on a benchmark is not above the earlier maximum. The score is a win
  rate against a fixed opponent on 805 prompts, 22 % at first; it rises by half of a gain. The same prompts are used
  each time, so half of the variance is common and cancels: the standard error of a difference is 1.6 pp.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from monitor_oc_scenarios import HORIZON, Scenario, World, stepped

RULES = ("shipped", "fixed", "mean", "patience")
FIXED_ITERATIONS = 3
FIRST_SCORE = 0.22
SCORE_DEVIATION = math.sqrt(0.3 * 0.7 / 805 / 2)
NORMAL = NormalDist()


@dataclass(frozen=True)
class SimulatedDecision:
    """One decision. `gain` is the mean with its bounds at the stop and at the harm level; None where untested."""

    decision: str
    stopped: bool
    best: int
    num_analyses: int
    gain: tuple[float, float, float, float, float] | None


@dataclass(frozen=True)
class Run:
    """The shipped rule's decisions on one run, and the iteration after which each rule stops; None for never."""

    decisions: tuple[SimulatedDecision, ...]
    stopped_at: dict[str, int | None]

    @property
    def stopped_by(self) -> str:
        return self.decisions[-1].decision if self.decisions[-1].stopped else ""

    def at(self, t: int) -> SimulatedDecision | None:
        """Return the decision on iteration t; None when the run ended before."""
        return self.decisions[t - 1] if t <= len(self.decisions) else None


def simulate(scenario: Scenario, numbers: Iterable[int], *, seed: int) -> list[Run]:
    """Return one run for each number; seed, scenario and number determine it."""
    return [_run(World(scenario, seed, number)) for number in numbers]


def _run(world: World) -> Run:
    decisions = []
    for decision in stepped(world):
        bounds = decision.bounds.get("gain_vs_previous")
        gain = (bounds["mean"], *bounds["stop"], *bounds["harm"]) if bounds else None
        decisions.append(
            SimulatedDecision(decision.decision, decision.stops, decision.best_iteration, decision.num_analyses, gain)
        )
    means = [float(world.outcomes("anchor", "validation", t, t - 1).values.mean()) - 0.5 for t in range(1, HORIZON + 1)]
    return Run(
        decisions=tuple(decisions),
        stopped_at={
            "shipped": len(decisions) if decisions[-1].stopped else None,
            "fixed": FIXED_ITERATIONS,
            "mean": next((t for t, mean in enumerate(means, 1) if mean <= 0), None),
            "patience": _out_of_patience(_scores(world)),
        },
    )


def _scores(world: World) -> list[float]:
    """Return the benchmark scores of M_0 to M_8."""
    rng = np.random.default_rng([world.seed, world.number, 805])
    levels = FIRST_SCORE + np.concatenate([[0.0], np.cumsum(world.scenario.gains)]) / 2
    return [float(score) for score in levels + SCORE_DEVIATION * rng.standard_normal(HORIZON + 1)]


def _out_of_patience(scores: Sequence[float]) -> int | None:
    return next((t for t in range(1, len(scores)) if scores[t] <= max(scores[:t])), None)


def stop_probability(scenario: Scenario, t: int, *, alpha: float = 0.05) -> float:
    """Return P(upper bound of the gain < delta) in iteration t, for a normal mean and a known variance.

    With a second validation set, the first interim analysis spends 40 % of the iteration's alpha and the second, on all
    prompts, the rest. A run stopped by the first is nearly always stopped by the second, so the larger of the two
    probabilities is returned.
    """
    variance = (1 - scenario.tie_rates[t - 1]) / 4 - scenario.gains[t - 1] ** 2

    def probability(n: int, share: float) -> float:
        quantile = NORMAL.inv_cdf(1 - alpha * share / HORIZON)
        return NORMAL.cdf((scenario.delta - scenario.gains[t - 1]) / math.sqrt(variance / n) - quantile)

    if not scenario.second_validation:
        return probability(scenario.n, 1.0)
    return max(probability(scenario.n, 0.4), probability(2 * scenario.n, 0.6))


def predicted(scenario: Scenario, *, first: int, last: int) -> str:
    """Return P(stop in one of these iterations | first one reached), for independent analyses."""
    return short(1 - math.prod(1 - stop_probability(scenario, t) for t in range(first, last + 1)))


def short(rate: float) -> str:
    """Format a probability as in the tables: .048."""
    return f"{rate:.3f}".removeprefix("0") if rate < 1 else f"{rate:.2f}"
