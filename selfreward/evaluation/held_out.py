"""M_t on held-out prompts, against M_{t-1}, M_0 and the best: win rates, pass rate, length, variety, divergence.

The order of the stages lets the engine hold each model once: M_t responds and scores itself, M_{t-1} scores and judges,
the anchor compares, M_0 scores. In iteration 0 M_0 is measured alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfreward.evaluation.bench import Bench, Sides, baselines_of
from selfreward.evaluation.metrics import HeldOutResponses, Rivalry, measure, passes
from selfreward.evaluation.outcomes import check_outcomes, rows
from selfreward.evaluation.preference import Outcome, outcomes
from selfreward.evaluation.records import ResponseLogprob
from selfreward.evaluation.responding import Decoding
from selfreward.evaluation.self_judge import self_judgments, self_outcomes
from selfreward.evaluation.tables import (
    COMPARISONS,
    KL_RESPONSES,
    LOGPROBS,
    OUTCOMES,
    RESPONSES,
    SELF_JUDGMENTS,
    VERIFIABLE_RESPONSES,
)
from selfreward.parts import Judge
from selfreward.records import Comparison, Evaluation, Judgment, Prompt, PromptOutcome
from selfreward.seeding import seed_of
from selfreward.steps import Probe, Read, Reading, Stage
from selfreward.tables import EVALUATION, Table
from selfreward.workload import Workload

KL_PROMPTS = 32


def held_out(bench: Bench, iteration: int, *, self_judge: Judge | None = None) -> Probe:
    """`self_judge` is the run's own judge, None where it is not to be asked."""
    measured = _HeldOut(bench, self_judge)
    return measured.of_initial() if iteration == 0 else measured.of_trained(iteration)


@dataclass(frozen=True)
class _HeldOut:
    bench: Bench
    self_judge: Judge | None

    @property
    def monitor(self) -> Sequence[Prompt]:
        return self.bench.source.monitor_prompts()

    @property
    def verifiable(self) -> Sequence[Prompt]:
        return self.bench.source.verifiable_prompts()

    def of_initial(self) -> Probe:
        own = self._own_stages()
        return Probe(EVALUATION, own, tuple(Read(s.table, "iteration") for s in own), self._measure_initial)

    def of_trained(self, iteration: int) -> Probe:
        work = Workload(
            self.monitor, 1 + min(iteration, 3), self.bench.decoding.max_tokens, iteration, seen_before=iteration > 1
        )
        both = (Read(RESPONSES), Read(RESPONSES, "earlier"))
        comparisons = self.bench.comparisons(COMPARISONS, self.monitor, self._sides, reads=both, work=work)
        of_policy, of_previous, of_initial = self._divergence()
        stages = (
            *self._own_stages(),
            *of_policy,
            *(of_previous if iteration > 1 else ()),
            *((self._self_judgments(self.self_judge, both, work),) if self.self_judge else ()),
            comparisons,
            *of_initial,
        )
        reads = (
            *(Read(stage.table, "iteration") for stage in stages),
            Read(RESPONSES, "earlier"),
            Read(VERIFIABLE_RESPONSES, "earlier"),
        )
        made = Stage(OUTCOMES, self._outcomes, reads=reads, num_shards=1)
        return Probe(EVALUATION, (*stages, made), reads, self._measure)

    # -- stages ---------------------------------------------------------------------------------------------------

    def _own_stages(self) -> tuple[Stage[Any], ...]:
        return (
            self.bench.responses(RESPONSES, self.monitor, "trained"),
            self.bench.responses(VERIFIABLE_RESPONSES, self.verifiable, "trained"),
        )

    def _divergence(self) -> tuple[tuple[Stage[Any], ...], tuple[Stage[Any], ...], tuple[Stage[Any], ...]]:
        """Draws of M_t's own distribution, which a KL estimate needs and greedy responses are not, and their
        log-probabilities under M_t, M_{t-1} and M_0. M_t scores its own draws too: what its rounding differs from
        sampling by would look like KL.
        """
        bench = self.bench
        by_seed = sorted(self.monitor, key=lambda p: seed_of(bench.seed, 0, KL_RESPONSES.seed_name, p.id))
        drawn = by_seed[:KL_PROMPTS]
        unaltered = Decoding(temperature=1.0, top_p=1.0, max_tokens=bench.decoding.max_tokens)
        own = bench.responses(KL_RESPONSES, drawn, "trained", decoding=unaltered)
        scored, previous, initial = (
            bench.logprobs(table, KL_RESPONSES, drawn, role) for role, table in LOGPROBS.items()
        )
        return (own, scored), (replace(previous, only_if=_has_previous),), (initial,)

    def _self_judgments(self, judge: Judge, reads: tuple[Read, ...], work: Workload) -> Stage[Judgment]:
        """The judge of this iteration, M_{t-1} where the policy judges, on what the anchor sees."""

        def make(reading: Reading) -> list[Judgment]:
            sides = self._sides(reading, reading.shard)
            return self_judgments(
                self.bench.block(self.monitor, reading), [sides.own, *sides.baselines.values()],
                judge=judge, models=reading.roles, iteration=reading.iteration,
            )  # fmt: skip

        return Stage(
            SELF_JUDGMENTS,
            make,
            reads=reads,
            asks=judge.by,
            most=lambda lengths: judge.most(work, lengths),
            num_shards=self.bench.num_shards(self.monitor),
        )

    # -- measurements ---------------------------------------------------------------------------------------------

    def _sides(self, reading: Reading, shard: int | None) -> Sides:
        return Sides(
            list(reading.rows(RESPONSES, shard=shard)),
            {
                name: self.bench.evaluated(reading, RESPONSES, self.monitor, model, shard)
                for name, model in baselines_of(reading.roles).items()
            },
        )

    def _own(self, reading: Reading) -> HeldOutResponses:
        return HeldOutResponses(list(reading.rows(RESPONSES)), list(reading.rows(VERIFIABLE_RESPONSES)))

    def _rivalries(self, reading: Reading, own: HeldOutResponses) -> dict[str, Rivalry]:
        """M_t against each baseline, by its name. In the first iteration M_{t-1} is M_0, and all was done once."""
        sides, comparisons = self._sides(reading, None), list(reading.rows(COMPARISONS))
        against = list(sides.baselines.values())
        logprobs = {role: [row.logprob for row in reading.rows(table)] for role, table in self._logprob_tables(reading)}
        if "previous" not in logprobs:
            logprobs["previous"] = logprobs["initial"]
        judged = self._judged_by_itself(reading, sides)
        return {
            name: Rivalry(
                name,
                HeldOutResponses(
                    sides.baselines[name],
                    self.bench.evaluated(reading, VERIFIABLE_RESPONSES, self.verifiable, model, None),
                ),
                outcomes(own.monitor, sides.baselines[name], comparisons, against),
                logprobs["trained"] if name in logprobs else None,
                logprobs.get(name),
                judged[name],
            )
            for name, model in baselines_of(reading.roles).items()
        }

    def _logprob_tables(self, reading: Reading) -> list[tuple[str, Table[ResponseLogprob]]]:
        return [(role, table) for role, table in LOGPROBS.items() if role != "previous" or _has_previous(reading)]

    def _judged_by_itself(self, reading: Reading, sides: Sides) -> dict[str, Sequence[Outcome] | str]:
        if self.self_judge is None:
            return dict.fromkeys(sides.baselines, "evaluation.self_judge is false")
        judgments = list(reading.rows(SELF_JUDGMENTS))
        everybody = [sides.own, *sides.baselines.values()]
        return {name: self_outcomes(sides.own, side, judgments, everybody) for name, side in sides.baselines.items()}

    def _outcomes(self, reading: Reading) -> list[PromptOutcome]:
        """Of all judges against each baseline, by its iteration."""
        own = self._own(reading)
        passed = passes(self.verifiable, own)
        found: list[PromptOutcome] = []
        rivalries = {reading.roles[name].iteration: rival for name, rival in self._rivalries(reading, own).items()}
        for against, rival in rivalries.items():  # in the first iteration M_{t-1} and M_0 are one
            monitor, verifiable = rival.held_out.monitor, rival.held_out.verifiable
            found += rows(rival.outcomes, own.monitor, monitor, set="monitor", by="anchor", against=against)
            if not isinstance(rival.self_outcomes, str):
                found += rows(rival.self_outcomes, own.monitor, monitor, set="monitor", by="self", against=against)
            checked = check_outcomes(own.verifiable, passed, passes(self.verifiable, rival.held_out))
            found += rows(checked, own.verifiable, verifiable, set="verifiable", by="checks", against=against)
        return found

    def _measure_initial(self, reading: Reading) -> Evaluation:
        own = self._own(reading)
        return self._measured(reading, own, own, [], [])

    def _measure(self, reading: Reading) -> Evaluation:
        own = self._own(reading)
        rivalries = self._rivalries(reading, own)
        first = rivalries["initial"].held_out
        return self._measured(reading, own, first, list(rivalries.values()), list(reading.rows(COMPARISONS)))

    def _measured(
        self,
        reading: Reading,
        own: HeldOutResponses,
        initial: HeldOutResponses,
        rivals: Sequence[Rivalry],
        comparisons: Sequence[Comparison],
    ) -> Evaluation:
        return measure(
            reading.iteration,
            own=own,
            initial=initial,
            rivals=rivals,
            comparisons=comparisons,
            verifiable_prompts=self.verifiable,
            max_tokens=self.bench.decoding.max_tokens,
            seed=self.bench.seed,
        )


def _has_previous(reading: Reading) -> bool:
    """Whether M_{t-1} is another checkpoint than M_0."""
    return reading.roles["previous"].iteration != reading.roles["initial"].iteration
