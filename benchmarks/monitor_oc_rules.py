"""The shipped rule and three that people use now, on the same simulated runs; and what normal theory predicts.

* fixed: three iterations, whatever is measured.
* mean: stop at the first iteration whose mean outcome against the previous checkpoint is 0.5 or less.
* patience: stop at the first iteration whose score on a benchmark is no higher than the best before. The score is a win
  rate against a fixed opponent on 805 prompts, 22 % at first; it rises by half of a gain. The same prompts are asked
  each time, so half of the variance is common and cancels: the standard error of a difference is 1.6 points.
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
class Seen:
    """One decision. `gain` are its mean, and its bounds at the stop and at the harm level; None where untested."""

    decision: str
    stopped: bool
    best: int
    look: int
    gain: tuple[float, float, float, float, float] | None


@dataclass(frozen=True)
class Run:
    """The shipped rule's decisions on one run; the iteration after which each rule stops, None if it never does."""

    seen: tuple[Seen, ...]
    stopped_at: dict[str, int | None]

    @property
    def stopped_by(self) -> str:
        return self.seen[-1].decision if self.seen[-1].stopped else ""

    def at(self, t: int) -> Seen | None:
        """The decision on iteration t; None when the run had ended before."""
        return self.seen[t - 1] if t <= len(self.seen) else None


def simulate(scenario: Scenario, numbers: Iterable[int], *, seed: int) -> list[Run]:
    """One run for each number, which with the seed and the scenario decides it."""
    return [_run(World(scenario, seed, number)) for number in numbers]


def _run(world: World) -> Run:
    seen = []
    for decision in stepped(world):
        bounds = decision.bounds.get("gain_vs_previous")
        gain = (bounds["mean"], *bounds["stop"], *bounds["harm"]) if bounds else None
        seen.append(Seen(decision.decision, decision.stops, decision.best_iteration, decision.num_analyses, gain))
    means = [float(world.outcomes("anchor", "validation", t, t - 1).values.mean()) - 0.5 for t in range(1, HORIZON + 1)]
    return Run(
        seen=tuple(seen),
        stopped_at={
            "shipped": len(seen) if seen[-1].stopped else None,
            "fixed": FIXED_ITERATIONS,
            "mean": next((t for t, mean in enumerate(means, 1) if mean <= 0), None),
            "patience": _out_of_patience(_scores(world)),
        },
    )


def _scores(world: World) -> list[float]:
    """On the benchmark, of M_0 to M_8."""
    rng = np.random.default_rng([world.seed, world.number, 805])
    levels = FIRST_SCORE + np.concatenate([[0.0], np.cumsum(world.scenario.gains)]) / 2
    return [float(score) for score in levels + SCORE_DEVIATION * rng.standard_normal(HORIZON + 1)]


def _out_of_patience(scores: Sequence[float]) -> int | None:
    return next((t for t in range(1, len(scores)) if scores[t] <= max(scores[:t])), None)


def stop_probability(scenario: Scenario, t: int, *, alpha: float = 0.05) -> float:
    """That the upper bound of a gain is below delta in iteration t, from a normal mean and a known variance.

    With a second validation set, the first interim analysis is at 40 % of the iteration's budget and the second at the
    rest, on all prompts; a run that is stopped by the first is nearly always stopped by the second, so the larger of
    the two is given.
    """
    variance = (1 - scenario.tie_rates[t - 1]) / 4 - scenario.gains[t - 1] ** 2

    def probability(n: int, share: float) -> float:
        quantile = NORMAL.inv_cdf(1 - alpha * share / HORIZON)
        return NORMAL.cdf((scenario.delta - scenario.gains[t - 1]) / math.sqrt(variance / n) - quantile)

    if not scenario.second_validation:
        return probability(scenario.n, 1.0)
    return max(probability(scenario.n, 0.4), probability(2 * scenario.n, 0.6))


def predicted(scenario: Scenario, *, first: int, last: int) -> str:
    """That a run which comes to the first of these iterations is stopped in one of them, looks being independent."""
    return short(1 - math.prod(1 - stop_probability(scenario, t) for t in range(first, last + 1)))


def short(rate: float) -> str:
    """A probability the way tables show it: .048."""
    return f"{rate:.3f}".removeprefix("0") if rate < 1 else f"{rate:.2f}"
