"""The best checkpoint against M_0 on the test set, evaluated once, when a run stops.

The best checkpoint was selected on the validation prompts, so estimates on these are too optimistic.
"""

from dataclasses import dataclass
from typing import Any

from selfreward.evaluation.evaluator import Evaluator, Sides
from selfreward.evaluation.metrics import MetricTable, measure_anchor, put_win_rates
from selfreward.evaluation.outcomes import length_deltas, rows
from selfreward.evaluation.preference import Outcome, outcomes
from selfreward.evaluation.tables import TEST_COMPARISONS, TEST_OUTCOMES, TEST_RESPONSES_OF
from selfreward.records import Evaluation, PromptOutcome
from selfreward.steps import Probe, Read, Reading, Stage, complete_tables
from selfreward.tables import TEST
from selfreward.workload import Workload

WIN_RATE = "test_win_rate_vs_initial"


def test_set(evaluator: Evaluator) -> tuple[Probe, ...]:
    """Return the measurement on the test set, if there are test prompts; skipped if the best checkpoint is M_0."""
    return (_TestSet(evaluator).probe(),) if evaluator.source.test_prompts() else ()


@dataclass(frozen=True)
class _TestSet:
    evaluator: Evaluator

    def probe(self) -> Probe:
        evaluator, prompts = self.evaluator, self.evaluator.source.test_prompts()
        responses = [evaluator.responses(table, prompts, role) for role, table in TEST_RESPONSES_OF.items()]
        reads, work = (
            tuple(map(Read, TEST_RESPONSES_OF.values())),
            Workload(prompts, 2, evaluator.decoding.max_tokens, 1),
        )
        compared = evaluator.comparisons(TEST_COMPARISONS, prompts, self._sides, reads=reads, work=work)
        stages: tuple[Stage[Any], ...] = (*responses, compared)
        made = Stage(TEST_OUTCOMES, self._outcomes, reads=complete_tables(stages), num_shards=1)
        return Probe(TEST, (*stages, made), measure=self._measure, when="at_end", only_if=_is_due)

    def _sides(self, reading: Reading, shard: int | None = None) -> Sides:
        best, initial = (list(reading.rows(TEST_RESPONSES_OF[role], shard=shard)) for role in ("best", "initial"))
        return Sides(best, {"initial": initial})

    def _compared(self, reading: Reading, found: Sides) -> list[Outcome]:
        return outcomes(found.own, found.baselines["initial"], reading.rows(TEST_COMPARISONS), found.against)

    def _outcomes(self, reading: Reading) -> list[PromptOutcome]:
        found, against = self._sides(reading), reading.roles["initial"].iteration
        initial_responses = found.baselines["initial"]
        return rows(
            self._compared(reading, found), found.own, initial_responses, set="test", by="anchor", against=against
        )

    def _measure(self, reading: Reading) -> Evaluation:
        found, table, seed = self._sides(reading), MetricTable(), self.evaluator.seed
        by_prompt, deltas = self._compared(reading, found), length_deltas(found.own, found.baselines["initial"])
        same = [own.text == other.text for own, other in zip(found.own, found.baselines["initial"], strict=True)]
        put_win_rates(table, WIN_RATE, by_prompt, deltas, same=same, seed=seed)
        measure_anchor(table, list(reading.rows(TEST_COMPARISONS)), by_prompt, seed=seed)
        return Evaluation(reading.iteration, table.metrics, table.not_measured)


def _is_due(reading: Reading) -> bool:
    return reading.roles["best"].id != reading.roles["initial"].id
