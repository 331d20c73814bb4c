"""The best checkpoint against M_0 on prompts that nothing was decided on: once in the life of a run, when it stops.

The best one was chosen on the other prompts, so that what these say of it is too good.
"""

from dataclasses import dataclass
from typing import Any

from selfreward.evaluation.bench import Bench, Sides
from selfreward.evaluation.metrics import Sheet, measure_anchor, put_win_rates
from selfreward.evaluation.outcomes import length_deltas, rows
from selfreward.evaluation.preference import Outcome, outcomes
from selfreward.evaluation.tables import SEAL_COMPARISONS, SEAL_OUTCOMES, SEAL_RESPONSES_OF
from selfreward.records import Evaluation, PromptOutcome
from selfreward.steps import Probe, Read, Reading, Stage, whole
from selfreward.tables import SEAL
from selfreward.workload import Workload

WIN_RATE = "seal_win_rate_vs_initial"


def seal(bench: Bench) -> tuple[Probe, ...]:
    """Nothing without prompts, and not due while the best checkpoint is M_0 itself."""
    return (_Seal(bench).probe(),) if bench.source.seal_prompts() else ()


@dataclass(frozen=True)
class _Seal:
    bench: Bench

    def probe(self) -> Probe:
        bench, prompts = self.bench, self.bench.source.seal_prompts()
        responses = [bench.responses(table, prompts, role) for role, table in SEAL_RESPONSES_OF.items()]
        reads, work = tuple(map(Read, SEAL_RESPONSES_OF.values())), Workload(prompts, 2, bench.decoding.max_tokens, 1)
        compared = bench.comparisons(SEAL_COMPARISONS, prompts, self._sides, reads=reads, work=work)
        stages: tuple[Stage[Any], ...] = (*responses, compared)
        made = Stage(SEAL_OUTCOMES, self._outcomes, reads=whole(stages), num_shards=1)
        return Probe(SEAL, (*stages, made), measure=self._measure, when="at_end", only_if=_is_due)

    def _sides(self, reading: Reading, shard: int | None = None) -> Sides:
        ours, theirs = (list(reading.rows(SEAL_RESPONSES_OF[role], shard=shard)) for role in ("best", "initial"))
        return Sides(ours, {"initial": theirs})

    def _compared(self, reading: Reading, found: Sides) -> list[Outcome]:
        return outcomes(found.own, found.baselines["initial"], reading.rows(SEAL_COMPARISONS), found.against)

    def _outcomes(self, reading: Reading) -> list[PromptOutcome]:
        found, against = self._sides(reading), reading.roles["initial"].iteration
        theirs = found.baselines["initial"]
        return rows(self._compared(reading, found), found.own, theirs, set="seal", by="anchor", against=against)

    def _measure(self, reading: Reading) -> Evaluation:
        found, sheet, seed = self._sides(reading), Sheet(), self.bench.seed
        by_prompt, deltas = self._compared(reading, found), length_deltas(found.own, found.baselines["initial"])
        put_win_rates(sheet, WIN_RATE, by_prompt, deltas, seed=seed)
        measure_anchor(sheet, list(reading.rows(SEAL_COMPARISONS)), by_prompt, seed=seed)
        return Evaluation(reading.iteration, sheet.metrics, sheet.not_measured)


def _is_due(reading: Reading) -> bool:
    return reading.roles["best"].id != reading.roles["initial"].id
