"""Evaluation of M_t on held-out prompts against M_{t-1}, M_0 and the best: win rates, pass rate, length, diversity, KL.

The order of the stages lets the engine load each model once: M_t responds and scores itself, M_{t-1} scores and judges,
the anchor compares, M_0 scores. In iteration 0 M_0 is measured alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfreward.evaluation.evaluator import Evaluator, Sides
from selfreward.evaluation.metrics import BaselineComparison, HeldOutResponses, measure, passes
from selfreward.evaluation.outcomes import check_outcomes, rows
from selfreward.evaluation.preference import Outcome, outcomes
from selfreward.evaluation.records import ResponseLogprob
from selfreward.evaluation.responding import score_responses
from selfreward.evaluation.self_outcomes import self_judgments, self_outcomes
from selfreward.evaluation.tables import (
    COMPARISONS,
    GREEDY_RESPONSES,
    KL_RESPONSES,
    LOGPROBS,
    OUTCOMES,
    RESPONSES,
    SELF_JUDGMENTS,
    VERIFIABLE_RESPONSES,
)  # fmt: skip
from selfreward.parts import Judge
from selfreward.records import Checkpoint, Comparison, Evaluation, Judgment, Prompt, PromptOutcome, Response
from selfreward.roles import Roles
from selfreward.seeding import seed_of
from selfreward.steps import Probe, Read, Reading, Stage, complete_tables
from selfreward.tables import EVALUATION
from selfreward.workload import Workload, forward_requests

KL_PROMPTS = 32
EARLIER = tuple(Read(table, "earlier") for table in (RESPONSES, VERIFIABLE_RESPONSES, GREEDY_RESPONSES))


def held_out(evaluator: Evaluator, iteration: int, *, self_judge: Judge | None = None) -> Probe:
    """Return the evaluation of an iteration. `self_judge` is the run's own judge, None if it should not be used."""
    probe = _HeldOut(evaluator, self_judge)
    return probe.initial_probe() if iteration == 0 else probe.trained_probe(iteration)


def baselines_of(roles: Roles) -> dict[str, Checkpoint]:
    """Return the baselines of M_t: M_{t-1}, M_0, and the best checkpoint if it is neither of the two."""
    found = {"previous": roles["previous"], "initial": roles["initial"]}
    third = roles["best"].iteration not in {model.iteration for model in found.values()}
    return found | ({"best": roles["best"]} if third else {})


@dataclass(frozen=True)
class _HeldOut:
    evaluator: Evaluator
    self_judge: Judge | None

    @property
    def validation(self) -> Sequence[Prompt]:
        return self.evaluator.source.validation_prompts()

    @property
    def verifiable(self) -> Sequence[Prompt]:
        return self.evaluator.source.verifiable_prompts()

    @property
    def only_verifiable(self) -> Sequence[Prompt]:
        """The verifiable prompts that are not validation prompts, so that no prompt is responded to twice."""
        validation = {prompt.id for prompt in self.validation}
        return [prompt for prompt in self.verifiable if prompt.id not in validation]

    @property
    def has_greedy(self) -> bool:
        """Whether greedy responses differ from the others, and are measured beside them."""
        return self.evaluator.decoding.temperature > 0 and bool(self.verifiable)

    def initial_probe(self) -> Probe:
        return Probe(EVALUATION, self._own_stages(), (), self._measure_initial)

    def trained_probe(self, iteration: int) -> Probe:
        tokens = self.evaluator.decoding.max_tokens
        work = Workload(self.validation, 1 + min(iteration, 3), tokens, iteration, already_judged=iteration > 1)
        both = (Read(RESPONSES), EARLIER[0])
        own, previous, initial = self._divergence()
        stages = (
            *self._own_stages(),
            *own,
            *(previous if iteration > 1 else ()),
            *((self._self_judgments(self.self_judge, both, work),) if self.self_judge else ()),
            self.evaluator.comparisons(COMPARISONS, self.validation, self._sides, reads=both, work=work),
            *initial,
        )
        made = Stage(OUTCOMES, self._outcomes, reads=(*complete_tables(stages), *EARLIER), num_shards=1)
        return Probe(EVALUATION, (*stages, made), EARLIER, self._measure)

    # -- stages ---------------------------------------------------------------------------------------------------

    def _own_stages(self) -> tuple[Stage[Any], ...]:
        evaluator = self.evaluator
        greedy = replace(evaluator.decoding, temperature=0.0)
        return (
            evaluator.responses(RESPONSES, self.validation, "trained"),
            evaluator.responses(VERIFIABLE_RESPONSES, self.only_verifiable, "trained"),
            *(
                [evaluator.responses(GREEDY_RESPONSES, self.verifiable, "trained", decoding=greedy)]
                if self.has_greedy
                else []
            ),
        )

    def _divergence(self) -> tuple[tuple[Stage[Any], ...], ...]:
        """Return the stages for the KL estimates, as a tuple each for M_t, M_{t-1} and M_0.

        They sample responses from M_t's unmodified distribution, which greedy responses are not, and compute their
        log-probabilities under each model. M_t also scores its own draws, since numerical differences between sampling
        and scoring would appear as KL.
        """
        evaluator = self.evaluator
        by_seed = sorted(self.validation, key=lambda p: seed_of(evaluator.seed, 0, KL_RESPONSES.seed_name, p.id))
        drawn = by_seed[:KL_PROMPTS]
        own = evaluator.responses(KL_RESPONSES, drawn, "trained", decoding=evaluator.decoding.unaltered())
        scored = {role: self._logprobs(role, drawn) for role in LOGPROBS}
        return (own, scored["trained"]), (replace(scored["previous"], only_if=_has_previous),), (scored["initial"],)

    def _logprobs(self, role: str, drawn: Sequence[Prompt]) -> Stage[ResponseLogprob]:
        """Return the stage that computes log p(response | prompt) of the draws under `role`, in nats."""

        def make(reading: Reading) -> list[ResponseLogprob]:
            return score_responses(self.evaluator.engine, list(reading.rows(KL_RESPONSES)), model=reading.roles[role])

        tokens = self.evaluator.decoding.max_tokens
        return Stage(
            LOGPROBS[role], make, reads=(Read(KL_RESPONSES),), queries=frozenset({role}),
            max_requests=lambda lengths: forward_requests(role, drawn, lengths, max_tokens=tokens),
        )  # fmt: skip

    def _self_judgments(self, judge: Judge, reads: tuple[Read, ...], work: Workload) -> Stage[Judgment]:
        """Return the stage in which this iteration's judge scores the responses that the anchor compares.

        Where the policy judges, that is M_{t-1}.
        """

        def make(reading: Reading) -> list[Judgment]:
            sides, block = self._sides(reading, reading.shard), self.evaluator.block(self.validation, reading.shard)
            all_sides = [sides.own, *sides.against]
            models = reading.roles.at_iteration_start  # the weights with which it labelled, before the update
            return self_judgments(block, all_sides, judge=judge, models=models, iteration=reading.iteration)

        return Stage(
            SELF_JUDGMENTS, make, reads=reads, queries=judge.by, num_shards=self.evaluator.num_shards(self.validation),
            max_requests=lambda lengths: judge.max_requests(work, lengths),
        )  # fmt: skip

    # -- measurements ---------------------------------------------------------------------------------------------

    def _sides(self, reading: Reading, shard: int | None) -> Sides:
        baselines = {
            name: self.evaluator.evaluated(reading, RESPONSES, self.validation, model, shard)
            for name, model in baselines_of(reading.roles).items()
        }
        return Sides(list(reading.rows(RESPONSES, shard=shard)), baselines)

    def _own(self, reading: Reading) -> HeldOutResponses:
        greedy = list(reading.rows(GREEDY_RESPONSES)) if self.has_greedy else None
        return self._held_out(list(reading.rows(RESPONSES)), list(reading.rows(VERIFIABLE_RESPONSES)), greedy)

    def _earlier(self, reading: Reading, model: Checkpoint, validation: list[Response]) -> HeldOutResponses:
        """Return the stored responses of an earlier checkpoint, whose responses to the validation prompts are given."""
        evaluated = self.evaluator.evaluated
        verifiable = evaluated(reading, VERIFIABLE_RESPONSES, self.only_verifiable, model, None)
        greedy = evaluated(reading, GREEDY_RESPONSES, self.verifiable, model, None) if self.has_greedy else None
        return self._held_out(validation, verifiable, greedy)

    def _held_out(
        self, validation: list[Response], verifiable: list[Response], greedy: list[Response] | None
    ) -> HeldOutResponses:
        by_prompt = {response.prompt_id: response for response in (*validation, *verifiable)}
        return HeldOutResponses(validation, [by_prompt[prompt.id] for prompt in self.verifiable], greedy)

    def _baseline_comparisons(self, reading: Reading, own: HeldOutResponses) -> dict[str, BaselineComparison]:
        """Return M_t against each baseline, by name. In the first iteration M_{t-1} is M_0, and is measured once."""
        sides, comparisons = self._sides(reading, None), list(reading.rows(COMPARISONS))
        tables = {**LOGPROBS, "previous": LOGPROBS["previous" if _has_previous(reading) else "initial"]}
        logprobs = {role: [row.logprob for row in reading.rows(table)] for role, table in tables.items()}
        judged = self._self_outcomes_by_baseline(reading, sides)

        def against_baseline(name: str, model: Checkpoint) -> BaselineComparison:
            side = sides.baselines[name]
            compared = outcomes(own.validation, side, comparisons, sides.against)
            own_logprobs = logprobs["trained"] if name in logprobs else None
            held_out = self._earlier(reading, model, side)
            return BaselineComparison(name, held_out, compared, own_logprobs, logprobs.get(name), judged[name])

        return {name: against_baseline(name, model) for name, model in baselines_of(reading.roles).items()}

    def _self_outcomes_by_baseline(self, reading: Reading, sides: Sides) -> dict[str, Sequence[Outcome] | str]:
        if self.self_judge is None:
            return dict.fromkeys(sides.baselines, "evaluation.self_judge is false")
        judgments, all_sides = list(reading.rows(SELF_JUDGMENTS)), [sides.own, *sides.against]
        return {name: self_outcomes(sides.own, side, judgments, all_sides) for name, side in sides.baselines.items()}

    def _outcomes(self, reading: Reading) -> list[PromptOutcome]:
        """Return the outcomes of all judges against each baseline."""
        own = self._own(reading)
        passed = passes(self.verifiable, own.verifiable)
        found: list[PromptOutcome] = []
        baseline_comparisons = {
            reading.roles[name].iteration: baseline
            for name, baseline in self._baseline_comparisons(reading, own).items()
        }
        for against, baseline in baseline_comparisons.items():  # in the first iteration M_{t-1} and M_0 are one
            validation, verifiable = baseline.held_out.validation, baseline.held_out.verifiable
            found += rows(baseline.outcomes, own.validation, validation, set="validation", by="anchor", against=against)
            if not isinstance(baseline.self_outcomes, str):
                found += rows(
                    baseline.self_outcomes, own.validation, validation, set="validation", by="self", against=against
                )
            checked = check_outcomes(own.verifiable, passed, passes(self.verifiable, verifiable))
            found += rows(checked, own.verifiable, verifiable, set="verifiable", by="checks", against=against)
        return found

    def _measure_initial(self, reading: Reading) -> Evaluation:
        return self._measured(reading, {}, [])

    def _measure(self, reading: Reading) -> Evaluation:
        return self._measured(
            reading, self._baseline_comparisons(reading, self._own(reading)), list(reading.rows(COMPARISONS))
        )

    def _measured(
        self, reading: Reading, baseline_comparisons: dict[str, BaselineComparison], comparisons: Sequence[Comparison]
    ) -> Evaluation:
        own = self._own(reading)
        return measure(
            reading.iteration, own=own,
            initial=baseline_comparisons["initial"].held_out if baseline_comparisons else own,
            baselines=list(baseline_comparisons.values()), comparisons=comparisons, verifiable_prompts=self.verifiable,
            max_tokens=self.evaluator.decoding.max_tokens, seed=self.evaluator.seed,
        )  # fmt: skip


def _has_previous(reading: Reading) -> bool:
    """Whether M_{t-1} is a different checkpoint from M_0."""
    return reading.roles["previous"].iteration != reading.roles["initial"].iteration
