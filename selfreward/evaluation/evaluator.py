"""Stages that collect responses and comparisons, shared by all measurements on held-out prompts.

Shard k of a stage is block k of its set of prompts, so that a kill loses at most one block, and responses of different
checkpoints to the same prompts are in the same shard. Responses of earlier checkpoints are the ones stored when those
checkpoints were evaluated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.errors import StoreError
from selfreward.evaluation.preference import different_pairs
from selfreward.evaluation.responding import Decoding, respond
from selfreward.parts import Anchor, Engine, PromptSource
from selfreward.records import Checkpoint, Comparison, Prompt, Response
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import Table
from selfreward.workload import Workload, sampling_requests

Prompts = Sequence[Prompt]


@dataclass(frozen=True)
class Sides:
    """Responses to the same prompts in the same order, by a checkpoint and by each baseline (by role)."""

    own: list[Response]
    baselines: dict[str, list[Response]]

    @property
    def against(self) -> list[list[Response]]:
        return list(self.baselines.values())


@dataclass(frozen=True)
class Evaluator:
    """Prompts, engine, anchor and decoding parameters; a shard has `shard_prompts` prompts."""

    source: PromptSource
    engine: Engine
    anchor: Anchor
    decoding: Decoding
    seed: int
    shard_prompts: int

    def num_shards(self, prompts: Sequence[object]) -> int:
        return -(-len(prompts) // self.shard_prompts)

    def block(self, prompts: Prompts, shard: int | None) -> Prompts:
        size = self.shard_prompts
        return prompts if shard is None else prompts[shard * size : (shard + 1) * size]

    def responses(
        self, table: Table[Response], prompts: Prompts, role: str, *, decoding: Decoding | None = None, **more: Any
    ) -> Stage[Response]:
        """Return the stage of one response by `role` to each prompt.

        Tables with the same seed name get the same responses from the same checkpoint.
        """
        how = decoding or self.decoding

        def make(reading: Reading) -> list[Response]:
            block_prompts, model = self.block(prompts, reading.shard), reading.roles[role]
            return respond(
                self.engine, block_prompts, model=model, stage=table.seed_name, decoding=how, run_seed=self.seed
            )

        def check(reading: Reading) -> None:
            _aligned(prompts, list(reading.rows(table)), f"{table.name} of iteration {reading.iteration}")

        return Stage(
            table, make, queries=frozenset({role}), num_shards=self.num_shards(prompts), check=check,
            max_requests=lambda lengths: sampling_requests(role, prompts, lengths, max_tokens=how.max_tokens), **more,
        )  # fmt: skip

    def comparisons(
        self,
        table: Table[Comparison],
        prompts: Prompts,
        sides: Callable[[Reading, int | None], Sides],
        *,
        reads: tuple[Read, ...],
        work: Workload,
    ) -> Stage[Comparison]:
        """Return the stage of the anchor's comparisons, one call per shard; each pair of different texts once."""

        def make(reading: Reading) -> list[Comparison]:
            found = sides(reading, reading.shard)
            compared = different_pairs(self.block(prompts, reading.shard), found.own, found.against)
            both = [[*side] for side in zip(*compared, strict=True)]
            return self.anchor.compare(*both, models=reading.roles, iteration=reading.iteration) if both else []

        return Stage(
            table, make, reads=reads, queries=self.anchor.by, num_shards=self.num_shards(prompts),
            max_requests=lambda lengths: self.anchor.max_requests(work, lengths),
        )  # fmt: skip

    def evaluated(
        self, reading: Reading, table: Table[Response], prompts: Prompts, model: Checkpoint, shard: int | None
    ) -> list[Response]:
        """Return the stored responses of an earlier checkpoint. Raises StoreError when it was not evaluated."""
        if not prompts:
            return []
        if not reading.has(table, iteration=model.iteration):
            raise StoreError(
                f"evaluation: M_{model.iteration} has no stored responses; a checkpoint is compared with checkpoints "
                "evaluated earlier; evaluate the iterations in order"
            )
        found = list(reading.rows(table, iteration=model.iteration, shard=shard))
        return _aligned(self.block(prompts, shard), found, f"{table.name} of iteration {model.iteration}")


def _aligned(prompts: Prompts, responses: list[Response], name: str) -> list[Response]:
    """Return `responses` unchanged. Raises StoreError unless there is one to each prompt, in order."""
    expected, found = [prompt.id for prompt in prompts], [response.prompt_id for response in responses]
    if found != expected:
        wrong = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
        what = (
            f"{len(found)} records for {len(expected)} prompts"
            if wrong is None
            else f"a record of prompt {found[wrong]!r} where {expected[wrong]!r} was expected"
        )
        raise StoreError(
            f"{name}: {what}; the evaluation prompts changed since the responses were stored, but checkpoints must be "
            "compared on the same prompts; restore them, or choose another output_dir"
        )
    return responses
