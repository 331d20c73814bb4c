"""The monitor of a run: the decision that the data allow, what is tried in answer to it, and the limits of the recipe.

In this order: what the data say (`decide.py`); a closed gate, which stops; an intervention, with which a run goes on
that would stop, or that drifts; limits of iterations and hours, where it would go on. A first look that leaves the
decision open and wants the second validation set is returned as it is. In mode `report_only` an intervention is told and not tried.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from selfreward.monitoring.decide import decide, starved, too_noisy
from selfreward.monitoring.evidence import evidence_of
from selfreward.monitoring.interventions import STOP, choose, effect_of
from selfreward.monitoring.limits import (
    EXIT_CODES,
    TOO_FEW_PAIRS,
    TOO_MANY_UNSCORED,
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
    """A pure function of its settings and of what it is asked about. `num_second_validation`: prompts of the second validation set.

    With `recipe` an intervention that would change nothing any more, or could not be used, is passed over.
    """

    section: MonitorSection
    max_iterations: int
    num_second_validation: int = 0
    recipe: Recipe | None = None

    def may_train(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        """False when there is nothing to learn from an iteration like this; `decide` then says STARVED."""
        return not (
            failed_checks_enforced(self.section, counts) or (self._enforces and self._too_noisy(counts, judging))
        )

    def decide(self, history: Sequence[IterationSummary], decided: Sequence[Decision], *, elapsed_s: float) -> Decision:
        """`history` holds iterations 1..t in order, at least one; `decided` are the decisions on 1..t-1.

        `elapsed_s` is the run's work so far, in seconds.
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
        found = self._answered(found, decided, failed_checks_enforced(self.section, counts))
        if not found.stops:
            found = self._limited(found, elapsed_s)
        return _told(found)

    @property
    def _enforces(self) -> bool:
        return self.section.mode == "enforce"

    def _too_noisy(self, counts: Mapping[str, int], judging: Evaluation | None) -> bool:
        untrained = IterationSummary(1, counts, {}, Evaluation(1, {}), {}, judging=judging)
        return bool(too_noisy(evidence_of([untrained], num_second_validation=0)[0], self.section))

    def _answered(self, found: Decision, decided: Sequence[Decision], closed: Sequence[str]) -> Decision:
        """What a closed gate and the listed interventions make of the decision."""
        if TOO_MANY_UNSCORED in closed:
            return replace(found, stopped_by=TOO_MANY_UNSCORED, exit_code=EXIT_CODES[TOO_MANY_UNSCORED])
        chosen = choose(found.decision, self.section.interventions, [*decided, found], recipe=self.recipe)
        if not self._enforces:
            noted = f"In mode enforce the next iteration would try {chosen}." if chosen and chosen != STOP else ""
            stopped_by = TOO_FEW_PAIRS if closed else ""
            return replace(found, stopped_by=stopped_by, notes=(*found.notes, *filter(None, [noted])))
        if chosen is not None and chosen != STOP:
            return replace(found, stopped_by="", intervention=chosen)
        if TOO_FEW_PAIRS in closed and found.decision == "STARVED":
            return replace(found, stopped_by=TOO_FEW_PAIRS)
        return replace(found, stopped_by=found.decision) if chosen == STOP else found

    def _limited(self, found: Decision, elapsed_s: float) -> Decision:
        """At a limit there is no next iteration, and nothing to try in it."""
        limit = reached_limit(
            self.section, iteration=found.iteration, max_iterations=self.max_iterations, elapsed_s=elapsed_s
        )
        return replace(found, stopped_by=limit, intervention="") if limit else found


def _told(found: Decision) -> Decision:
    """The reason, with what became of the run: why it stopped, what it tries next, which gates failed besides."""
    clauses = []
    if found.stopped_by == found.decision:
        clauses.append(f"stopped after iteration {found.iteration}")
    elif found.stops:
        clauses.append(f"stopped after iteration {found.iteration}: {limit_clause(found.stopped_by, found.numbers)}")
    if found.intervention:
        clauses.append(f"the next iteration tries {found.intervention}")
    noted = [limit_clause(gate, found.numbers) for gate in found.failed_checks if gate != found.stopped_by]
    if noted:
        clauses.append(f"noted but not a reason to stop here: {' and '.join(noted)}")
    return replace(found, reason="; ".join([found.reason.removesuffix("."), *clauses]) + ".")
