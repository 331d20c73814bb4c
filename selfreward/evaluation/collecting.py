"""What an evaluation collects from engine and anchor, each a stage of the store by blocks of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.errors import StoreError
from selfreward.evaluation.blocks import by_shards, one_each
from selfreward.evaluation.preference import differing
from selfreward.evaluation.records import ResponseLogprob
from selfreward.evaluation.responding import Decoding, respond, score_responses
from selfreward.parts import Engine, Models, PairwiseJudge, Stages
from selfreward.records import Checkpoint, Comparison, Prompt, Response


@dataclass(frozen=True)
class Collector:
    """Responses, log-probabilities and comparisons; a shard is a block of `shard_prompts` prompts."""

    engine: Engine
    anchor: PairwiseJudge
    decoding: Decoding
    seed: int
    shard_prompts: int

    def responses(
        self,
        stages: Stages,
        iteration: int,
        stage: str,
        prompts: Sequence[Prompt],
        *,
        model: Checkpoint,
        stored_as: str = "",
        of_iteration: int | None = None,
        decoding: Decoding | None = None,
    ) -> list[Response]:
        """One of `model` to each prompt. `stage` and `of_iteration` make ids and seeds, and so the same response
        wherever it is `stored_as`.
        """

        def make(block: Sequence[Prompt]) -> list[Response]:
            return respond(
                self.engine, block,
                model=model, iteration=iteration if of_iteration is None else of_iteration, stage=stage,
                decoding=decoding or self.decoding, run_seed=self.seed,
            )  # fmt: skip

        return one_each(stages, iteration, stored_as or stage, Response, prompts, make, size=self.shard_prompts)

    def evaluated_responses(
        self, stages: Stages, stage: str, prompts: Sequence[Prompt], *, model: Checkpoint
    ) -> list[Response]:
        """Those of an earlier checkpoint, as its own iteration stored them. Raises StoreError when it did not."""

        def missing(_: Sequence[Prompt]) -> list[Response]:
            raise StoreError(
                f"evaluation: M_{model.iteration} has no stored responses; a checkpoint is compared with what was "
                "evaluated before it; evaluate the iterations in order"
            )

        return one_each(stages, model.iteration, stage, Response, prompts, missing, size=self.shard_prompts)

    def logprobs(
        self, stages: Stages, iteration: int, stage: str, draws: Sequence[Response], *, model: Checkpoint
    ) -> list[float]:
        """log p(draw | prompt) under `model`, in nats."""
        scored: list[ResponseLogprob] = one_each(
            stages, iteration, stage, ResponseLogprob, draws,
            lambda block: score_responses(self.engine, block, model=model), size=self.shard_prompts,
        )  # fmt: skip
        return [entry.logprob for entry in scored]

    def comparisons(
        self,
        stages: Stages,
        iteration: int,
        stage: str,
        prompts: Sequence[Prompt],
        own: Sequence[Response],
        rivals: Sequence[Sequence[Response]],
        *,
        models: Models,
    ) -> list[Comparison]:
        """The anchor's comparisons, one call for all rivals of a shard."""

        def make(block: Sequence[tuple[Any, ...]]) -> list[Comparison]:
            some_prompts, responses, *others = zip(*block, strict=True)
            compared = differing(some_prompts, responses, others)
            if not compared:
                return []
            return self.anchor.compare(
                *([*side] for side in zip(*compared, strict=True)), models=models, iteration=iteration
            )

        rows = list(zip(prompts, own, *rivals, strict=True))
        return by_shards(stages, iteration, stage, Comparison, rows, make, size=self.shard_prompts)
