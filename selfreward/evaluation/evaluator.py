"""Collects what an evaluation needs, stage by stage, then measures.

Every expensive step is a stage of the store, so a killed evaluation goes on where it was. The order of the stages
lets the engine hold each model once: M_t responds and scores itself, M_{t-1} scores, the anchor compares, M_0 scores.
Responses of earlier checkpoints are those that were stored when these were evaluated themselves.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.errors import StoreError
from selfreward.evaluation.judge import JudgeEvaluator
from selfreward.evaluation.metrics import HeldOutResponses, Rivalry, measure
from selfreward.evaluation.preference import differing, outcomes
from selfreward.evaluation.records import ResponseLogprob
from selfreward.evaluation.responding import Decoding, respond, score_responses
from selfreward.parts import Engine, Judged, Models, PairwiseJudge, PromptSource, Stages
from selfreward.records import Checkpoint, Comparison, Evaluation, Prompt, Response
from selfreward.seeding import seed_of

RESPONSES = "evaluation_responses"
VERIFIABLE_RESPONSES = "evaluation_verifiable_responses"
KL_RESPONSES = "evaluation_kl_responses"
LOGPROBS = "evaluation_logprobs"  # and _policy, _previous or _initial
COMPARISONS = "evaluation_comparisons"

KL_PROMPTS = 32


@dataclass(frozen=True)
class HeldOutEvaluator:
    """Win rates by the anchor, pass rate, length, variety and divergence of M_t. A shard is a block of prompts."""

    prompts: PromptSource
    engine: Engine
    anchor: PairwiseJudge
    judge_evaluator: JudgeEvaluator
    decoding: Decoding
    seed: int
    shard_prompts: int

    def evaluate(self, stages: Stages, iteration: int, *, models: Models, previous: Checkpoint | None) -> Evaluation:
        """Measures M_t, `models["policy"]`, against M_{t-1} and M_0; without `previous` it measures M_t alone.

        Raises StoreError when a rival was not evaluated before or on other prompts, and what the engine and the anchor
        raise.
        """
        policy, initial = models["policy"], models["initial"]
        own = self._held_out(stages, iteration, policy)
        rivals: list[Rivalry] = []
        comparisons: list[Comparison] = []
        first = own
        if previous is not None:
            first = self._held_out_of(stages, initial)
            rivals, comparisons = self._rivalries(stages, iteration, own, first, models=models, previous=previous)
        return measure(
            iteration,
            own=own,
            initial=first,
            rivals=rivals,
            comparisons=comparisons,
            verifiable_prompts=self.prompts.verifiable_prompts(),
            max_tokens=self.decoding.max_tokens,
            seed=self.seed,
        )

    def evaluate_judge(self, stages: Stages, iteration: int, *, judged: Iterable[Judged], models: Models) -> Evaluation:
        return self.judge_evaluator.evaluate(stages, iteration, judged=judged, models=models)

    def _rivalries(
        self,
        stages: Stages,
        iteration: int,
        own: HeldOutResponses,
        first: HeldOutResponses,
        *,
        models: Models,
        previous: Checkpoint,
    ) -> tuple[list[Rivalry], list[Comparison]]:
        policy, initial = models["policy"], models["initial"]
        # In the first iteration M_{t-1} is M_0, and all is done once.
        first_update = previous.iteration == initial.iteration
        draws = self._draws(stages, iteration, policy)
        own_logprobs = self._logprobs(stages, iteration, "policy", draws, policy)
        previous_logprobs = None if first_update else self._logprobs(stages, iteration, "previous", draws, previous)
        before = first if first_update else self._held_out_of(stages, previous)
        comparisons = self._compare(stages, iteration, own, [before, first], models)
        initial_logprobs = self._logprobs(stages, iteration, "initial", draws, initial)
        everything = [before.monitor, first.monitor]
        return [
            Rivalry(
                name,
                rival,
                outcomes(own.monitor, rival.monitor, comparisons, everything),
                own_logprobs,
                logprobs,
            )
            for name, rival, logprobs in (
                ("previous", before, initial_logprobs if previous_logprobs is None else previous_logprobs),
                ("initial", first, initial_logprobs),
            )
        ], comparisons

    def _held_out(self, stages: Stages, iteration: int, model: Checkpoint) -> HeldOutResponses:
        """What `model` responds to the monitor and the verifiable prompts."""

        def responses(stage: str, prompts: Sequence[Prompt]) -> list[Response]:
            return self._one_each(
                stages, iteration, stage, Response, prompts,
                lambda block: self._respond(block, stage, model, iteration, self.decoding),
            )  # fmt: skip

        return HeldOutResponses(
            responses(RESPONSES, self.prompts.monitor_prompts()),
            responses(VERIFIABLE_RESPONSES, self.prompts.verifiable_prompts()),
        )

    def _held_out_of(self, stages: Stages, rival: Checkpoint) -> HeldOutResponses:
        """What an earlier checkpoint responded when it was evaluated."""

        def missing(_: Sequence[Prompt]) -> list[Response]:
            raise StoreError(
                f"evaluation: M_{rival.iteration} has no stored responses; a checkpoint is compared with what was "
                "evaluated before it; evaluate the iterations in order"
            )

        return HeldOutResponses(
            *(
                self._one_each(stages, rival.iteration, stage, Response, prompts, missing)
                for stage, prompts in (
                    (RESPONSES, self.prompts.monitor_prompts()),
                    (VERIFIABLE_RESPONSES, self.prompts.verifiable_prompts()),
                )
            )
        )

    def _draws(self, stages: Stages, iteration: int, policy: Checkpoint) -> list[Response]:
        """Draws of the policy's own distribution, which a KL estimate needs and greedy responses are not."""
        prompts = sorted(self.prompts.monitor_prompts(), key=lambda p: seed_of(self.seed, 0, KL_RESPONSES, p.id))
        unaltered = Decoding(temperature=1.0, top_p=1.0, max_tokens=self.decoding.max_tokens)
        return self._one_each(
            stages, iteration, KL_RESPONSES, Response, prompts[:KL_PROMPTS],
            lambda block: self._respond(block, KL_RESPONSES, policy, iteration, unaltered),
        )  # fmt: skip

    def _respond(
        self, prompts: Sequence[Prompt], stage: str, model: Checkpoint, iteration: int, decoding: Decoding
    ) -> list[Response]:
        return respond(
            self.engine, prompts,
            model=model, iteration=iteration, stage=stage, decoding=decoding, run_seed=self.seed,
        )  # fmt: skip

    def _logprobs(
        self, stages: Stages, iteration: int, name: str, draws: Sequence[Response], model: Checkpoint
    ) -> list[float]:
        """M_t's own draws go through `score` too: what its rounding differs from sampling by would look like KL."""
        scored: list[ResponseLogprob] = self._one_each(
            stages, iteration, f"{LOGPROBS}_{name}", ResponseLogprob, draws,
            lambda block: score_responses(self.engine, block, model=model),
        )  # fmt: skip
        return [entry.logprob for entry in scored]

    def _compare(
        self,
        stages: Stages,
        iteration: int,
        own: HeldOutResponses,
        rivals: Sequence[HeldOutResponses],
        models: Models,
    ) -> list[Comparison]:
        """The anchor's comparisons in both orders, one engine call for all rivals of a shard."""

        def compare(block: Sequence[tuple[Any, ...]]) -> list[Comparison]:
            prompts, responses, *others = zip(*block, strict=True)
            compared = differing(prompts, responses, others)
            if not compared:
                return []
            return self.anchor.compare(
                *([*side] for side in zip(*compared, strict=True)), models=models, iteration=iteration
            )

        rows = list(zip(self.prompts.monitor_prompts(), own.monitor, *(r.monitor for r in rivals), strict=True))
        return self._by_shards(stages, iteration, COMPARISONS, Comparison, rows, compare)

    def _one_each(
        self,
        stages: Stages,
        iteration: int,
        stage: str,
        record_type: type,
        items: Sequence[Prompt] | Sequence[Response],
        make: Callable[[Sequence[Any]], list[Any]],
    ) -> list[Any]:
        """A stage with one record for each prompt or response, in their order; StoreError when it is of others."""
        records = self._by_shards(stages, iteration, stage, record_type, items, make)
        expected = [item.id if isinstance(item, Prompt) else item.prompt_id for item in items]
        found = [record.prompt_id for record in records]
        if found != expected:
            wrong = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
            what = (
                f"{len(found)} records for {len(expected)} prompts"
                if wrong is None
                else f"a record of prompt {found[wrong]!r} where {expected[wrong]!r} was expected"
            )
            raise StoreError(
                f"{stage} of iteration {iteration}: {what}; the evaluation prompts changed since they were stored, and "
                "checkpoints are compared on the same ones; restore the prompts, or choose another output_dir"
            )
        return records

    def _by_shards(
        self,
        stages: Stages,
        iteration: int,
        stage: str,
        record_type: type,
        items: Sequence[Any],
        make: Callable[[Sequence[Any]], list[Any]],
    ) -> list[Any]:
        """All records of a stage; block k of the items makes shard k, unless it is stored already."""
        records: list[Any] = []
        for shard, start in enumerate(range(0, len(items), self.shard_prompts)):
            block = items[start : start + self.shard_prompts]
            records += stages.once(iteration, stage, record_type, shard, lambda block=block: make(block))
        return records
