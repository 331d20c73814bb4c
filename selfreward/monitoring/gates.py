"""The first form of the monitor: limits of the recipe, and the checkpoint to use now.

What it does, in this order:

    TOO_MANY_UNSCORED  unscored judgments / judgments > max_unscored_rate      gate, exit code 3
    TOO_FEW_PAIRS      fewer than min_pairs pairs; without any, no mode goes on  gate, exit code 0
    MAX_HOURS          the run has worked for max_hours                          exit code 0
    MAX_ITERATIONS     iterations.max are done                                   exit code 0
    CONTINUE           none of these

Exit code 3 says that what the judge wrote cannot be trusted, so somebody has to look. The others are ends that the
recipe asked for, or that a loop comes to when its responses grow alike: `best` is usable and the run is finished.
In mode `report_only` a failed gate is written down and does not stop. Comparisons with earlier checkpoints do not stop
a run in this form; they are told in the sentence and decide which checkpoint is best.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfreward.monitoring.best import COMPARED_METRICS, best_iteration
from selfreward.monitoring.sentences import sentence
from selfreward.recipe import MonitorSection
from selfreward.records import Decision, Interval, IterationSummary

TOO_MANY_UNSCORED, TOO_FEW_PAIRS = "TOO_MANY_UNSCORED", "TOO_FEW_PAIRS"
MAX_HOURS, MAX_ITERATIONS, CONTINUE = "MAX_HOURS", "MAX_ITERATIONS", "CONTINUE"

EXIT_CODES = {TOO_MANY_UNSCORED: 3}


@dataclass(frozen=True)
class GateMonitor:
    """A pure function of its settings and of what it is asked about."""

    section: MonitorSection
    max_iterations: int

    def may_train(self, counts: Mapping[str, int]) -> bool:
        """False when nothing can be learned from an iteration with these counts; `decide` then stops the run."""
        return not self._stopping_gates(counts)

    def decide(self, history: Sequence[IterationSummary], *, elapsed_s: float) -> Decision:
        """`history` holds iterations 1..t in order, at least one; `elapsed_s` is the run's work so far, in seconds."""
        current = history[-1]
        gates = failed_gates(self.section, current.counts)
        stops = list(self._stopping_gates(current.counts))
        if self.section.max_hours is not None and elapsed_s >= self.section.max_hours * 3600:
            stops.append(MAX_HOURS)
        if current.iteration >= self.max_iterations:
            stops.append(MAX_ITERATIONS)
        reason = stops[0] if stops else CONTINUE
        numbers = self._numbers(current, elapsed_s)
        best = best_iteration(history)
        return Decision(
            iteration=current.iteration,
            decision="stop" if stops else "continue",
            reason=reason,
            sentence=sentence(current, reason, numbers, best=best, gates=gates),
            numbers=numbers,
            best_iteration=best,
            gates=gates,
            exit_code=EXIT_CODES.get(reason, 0),
        )

    def _stopping_gates(self, counts: Mapping[str, int]) -> tuple[str, ...]:
        if self.section.mode == "enforce":
            return failed_gates(self.section, counts)
        return () if response_pairs(counts) > 0 else (TOO_FEW_PAIRS,)

    def _numbers(self, summary: IterationSummary, elapsed_s: float) -> dict[str, float]:
        numbers: dict[str, float] = {
            "num_pairs": response_pairs(summary.counts),
            "min_pairs": self.section.min_pairs,
            "num_judgments": summary.counts.get("num_judgments", 0),
            "unscored_rate": unscored_rate(summary.counts),
            "max_unscored_rate": self.section.max_unscored_rate,
            "elapsed_hours": elapsed_s / 3600,
            "max_iterations": self.max_iterations,
        }
        if self.section.max_hours is not None:
            numbers["max_hours"] = self.section.max_hours
        for name in COMPARED_METRICS:
            metric = summary.evaluation.metrics.get(name)
            if isinstance(metric, Interval):
                numbers |= {name: metric.mean, f"{name}_low": metric.low, f"{name}_high": metric.high}
            elif metric is not None:
                numbers[name] = metric
        # The decision is stored as strict JSON, which knows no infinity.
        return {name: value for name, value in numbers.items() if math.isfinite(value)}


def failed_gates(section: MonitorSection, counts: Mapping[str, int]) -> tuple[str, ...]:
    """The gates that an iteration with these counts fails, whatever the mode."""
    gates = []
    if unscored_rate(counts) > section.max_unscored_rate:
        gates.append(TOO_MANY_UNSCORED)
    if response_pairs(counts) < section.min_pairs:
        gates.append(TOO_FEW_PAIRS)
    return tuple(gates)


def response_pairs(counts: Mapping[str, int]) -> int:
    """Pairs of responses: those of judgments teach the judge, and are no reason to go on alone."""
    return counts.get("num_pairs", 0) - counts.get("num_judgment_pairs", 0)


def unscored_rate(counts: Mapping[str, int]) -> float:
    """Unscored judgments as a share of all judgments, 0 when there are none."""
    num_judgments = counts.get("num_judgments", 0)
    return counts.get("num_unscored_judgments", 0) / num_judgments if num_judgments else 0.0
