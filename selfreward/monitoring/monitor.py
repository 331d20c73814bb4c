"""The monitor of a run: the decision from the data, the interventions against it, and the limits of the recipe.

They apply in this order: the decision from the data (`decide.py`); a failed check, which stops; an intervention, with
which a run continues that would stop or that drifts; limits of iterations and hours, for a run that would continue. A
decision after the first analysis that wants the second validation set is returned unchanged. In mode `report_only` an
intervention is reported but not tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfreward.monitoring.decide import decide, starved, too_noisy
from selfreward.monitoring.evidence import evidence_of
from selfreward.monitoring.interventions import STOP, effect_of, next_intervention
from selfreward.monitoring.limits import (
    TOO_FEW_PAIRS,
    TOO_MANY_UNSCORED,
    exit_code,
    failed_checks,
    failed_checks_enforced,
    limit_clause,
    numbers_of,
    reached_limit,
)
from selfreward.recipe import MonitorSection, Recipe
from selfreward.records import Decision, Evaluation, IterationSummary


@dataclass(frozen=True)
class RunMonitor:
    """The monitor of a run, without state: its decisions depend only on its settings and arguments.

    `num_second_validation` is the number of prompts of the second validation set. With `recipe`, interventions that
    would no longer change anything, or are not applicable, are skipped.
    """

    section: MonitorSection
    max_iterations: int
    num_second_validation: int = 0
    recipe: Recipe | None = None

    def may_train(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        """Return False when an iteration with these numbers is not worth training on; `decide` then returns STARVED."""
        return not (
            failed_checks_enforced(self.section, counts) or (self._enforces and self._too_noisy(counts, judging))
        )

    def decide(self, history: Sequence[IterationSummary], decided: Sequence[Decision], *, elapsed_s: float) -> Decision:
        """Return the decision on the last iteration of `history`.

        `history` contains iterations 1..t in order, at least one; `decided` are the decisions on 1..t-1. `elapsed_s` is
        the run's working time so far, in seconds.
        """
        counts = history[-1].counts
        evidence = evidence_of(history, num_second_validation=self.num_second_validation)
        found = decide(evidence, self.section, decided=decided)
        if found.wants_second_validation:
            return found
        found = replace(
            found,
            effect=effect_of(found, decided, still_starved=bool(starved(evidence[-1], self.section))),
            failed_checks=failed_checks(self.section, counts),
            numbers=numbers_of(
                self.section, counts, max_iterations=self.max_iterations, elapsed_s=elapsed_s
            ),
        )  # fmt: skip
        found = self._apply_interventions(found, decided, failed_checks_enforced(self.section, counts))
        if not found.stops:
            found = self._apply_limits(found, elapsed_s)
        return replace(_with_outcome(found), exit_code=exit_code(found.stopped_by, history))

    @property
    def _enforces(self) -> bool:
        return self.section.mode == "enforce"

    def _too_noisy(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        untrained = IterationSummary(1, counts, {}, Evaluation(1, {}), {}, judging=judging)
        return bool(too_noisy(evidence_of([untrained], num_second_validation=0)[0], self.section))

    def _apply_interventions(self, found: Decision, decided: Sequence[Decision], failed: Sequence[str]) -> Decision:
        """Apply failed checks and the listed interventions to the decision."""
        if TOO_MANY_UNSCORED in failed:
            return replace(found, stopped_by=TOO_MANY_UNSCORED)
        chosen = next_intervention(found.decision, self.section.interventions, [*decided, found], recipe=self.recipe)
        if not self._enforces:
            noted = f"In mode enforce the next iteration would try {chosen}." if chosen and chosen != STOP else ""
            stopped_by = TOO_FEW_PAIRS if failed else ""
            return replace(found, stopped_by=stopped_by, notes=(*found.notes, *filter(None, [noted])))
        if chosen is not None and chosen != STOP:
            return replace(found, stopped_by="", intervention=chosen)
        if TOO_FEW_PAIRS in failed and found.decision == "STARVED":
            return replace(found, stopped_by=TOO_FEW_PAIRS)
        return replace(found, stopped_by=found.decision) if chosen == STOP else found

    def _apply_limits(self, found: Decision, elapsed_s: float) -> Decision:
        """Apply the limits to the decision; at a limit there is no next iteration and no intervention."""
        limit = reached_limit(
            self.section, iteration=found.iteration, max_iterations=self.max_iterations, elapsed_s=elapsed_s
        )
        return replace(found, stopped_by=limit, intervention="") if limit else found


def _with_outcome(found: Decision) -> Decision:
    """Append the consequences to the reason: why the run stopped, the next intervention, other failed checks."""
    clauses = []
    if found.stopped_by == found.decision:
        clauses.append(f"stopped after iteration {found.iteration}")
    elif found.stops:
        clauses.append(f"stopped after iteration {found.iteration}: {limit_clause(found.stopped_by, found.numbers)}")
    if found.intervention:
        clauses.append(f"the next iteration tries {found.intervention}")
    noted = [limit_clause(gate, found.numbers) for gate in found.failed_checks if gate != found.stopped_by]
    if noted:
        clauses.append(f"recorded without stopping the run: {' and '.join(noted)}")
    return replace(found, reason="; ".join([found.reason.removesuffix("."), *clauses]) + ".")
