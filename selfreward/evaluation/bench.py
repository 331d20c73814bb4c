"""What measurements on held-out prompts share: the stages that collect responses, log-probabilities and comparisons.

Shard k of a stage is block k of its set of prompts, so that a kill loses at most one block, and responses of different
checkpoints to the same prompts stand in the same shard. Responses of earlier checkpoints are those that were stored
when these were evaluated themselves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from selfreward.errors import StoreError
from selfreward.evaluation.preference import differing
from selfreward.evaluation.records import ResponseLogprob
from selfreward.evaluation.responding import Decoding, respond, score_responses
from selfreward.parts import Anchor, Engine, PromptSource
from selfreward.records import Checkpoint, Comparison, Prompt, Response
from selfreward.roles import Roles
from selfreward.steps import Read, Reading, Stage
from selfreward.tables import Table
from selfreward.workload import Workload, draws, forward


@dataclass(frozen=True)
class Bench:
    """Prompts, engine, anchor, and how responses are drawn; `shard_prompts` prompts make a shard."""

    source: PromptSource
    engine: Engine
    anchor: Anchor
    decoding: Decoding
    seed: int
    shard_prompts: int

    def num_shards(self, prompts: Sequence[object]) -> int:
        return -(-len(prompts) // self.shard_prompts)

    def block(self, prompts: Sequence[Prompt], reading: Reading) -> Sequence[Prompt]:
        return prompts[reading.shard * self.shard_prompts : (reading.shard + 1) * self.shard_prompts]

    def responses(
        self,
        table: Table[Response],
        prompts: Sequence[Prompt],
        role: str,
        *,
        decoding: Decoding | None = None,
        only_if: Callable[[Reading], bool] = lambda _: True,
    ) -> Stage[Response]:
        """One of `role` to each prompt. Tables of one seed name get the same responses of the same checkpoint."""
        how = decoding or self.decoding

        def make(reading: Reading) -> list[Response]:
            model = reading.roles[role]
            return respond(
                self.engine, self.block(prompts, reading),
                model=model, iteration=model.iteration, stage=table.seed_name, decoding=how,
                run_seed=self.seed,
            )  # fmt: skip

        return Stage(
            table,
            make,
            asks=frozenset({role}),
            most=lambda lengths: draws(role, prompts, lengths, max_tokens=how.max_tokens),
            num_shards=self.num_shards(prompts),
            only_if=only_if,
            check=lambda reading: self._check(reading, table, prompts),
        )

    def _check(self, reading: Reading, table: Table[Response], prompts: Sequence[Prompt]) -> None:
        self.aligned(prompts, list(reading.rows(table)), name=f"{table.name} of iteration {reading.iteration}")

    def logprobs(
        self,
        table: Table[ResponseLogprob],
        drawn: Table[Response],
        prompts: Sequence[Prompt],
        role: str,
        *,
        only_if: Callable[[Reading], bool] = lambda _: True,
    ) -> Stage[ResponseLogprob]:
        """log p(response | prompt) under `role` of the responses `drawn` to these prompts, in nats."""

        def make(reading: Reading) -> list[ResponseLogprob]:
            return score_responses(self.engine, list(reading.rows(drawn)), model=reading.roles[role])

        return Stage(
            table,
            make,
            reads=(Read(drawn),),
            asks=frozenset({role}),
            most=lambda lengths: forward(role, prompts, lengths, max_tokens=self.decoding.max_tokens),
            only_if=only_if,
        )

    def comparisons(
        self,
        table: Table[Comparison],
        prompts: Sequence[Prompt],
        sides: Callable[[Reading, int | None], "Sides"],
        *,
        reads: tuple[Read, ...],
        work: Workload,
    ) -> Stage[Comparison]:
        """The anchor's, one call for all baselines of a shard; each pair of different texts once."""

        def make(reading: Reading) -> list[Comparison]:
            found = sides(reading, reading.shard)
            compared = differing(self.block(prompts, reading), found.own, list(found.baselines.values()))
            if not compared:
                return []
            return self.anchor.compare(
                *([*side] for side in zip(*compared, strict=True)), models=reading.roles, iteration=reading.iteration
            )

        return Stage(
            table,
            make,
            reads=reads,
            asks=self.anchor.by,
            most=lambda lengths: self.anchor.most(work, lengths),
            num_shards=self.num_shards(prompts),
        )

    def aligned(self, prompts: Sequence[Prompt], responses: Sequence[Response], *, name: str) -> list[Response]:
        """The responses, one to each of the prompts in their order. Raises StoreError when they are of others."""
        expected, found = [prompt.id for prompt in prompts], [response.prompt_id for response in responses]
        if found != expected:
            wrong = next((i for i, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b), None)
            what = (
                f"{len(found)} records for {len(expected)} prompts"
                if wrong is None
                else f"a record of prompt {found[wrong]!r} where {expected[wrong]!r} was expected"
            )
            raise StoreError(
                f"{name}: {what}; the evaluation prompts changed since they were stored, and checkpoints are compared "
                "on the same ones; restore the prompts, or choose another output_dir"
            )
        return list(responses)

    def evaluated(
        self, reading: Reading, table: Table[Response], prompts: Sequence[Prompt], model: Checkpoint, shard: int | None
    ) -> list[Response]:
        """What an earlier checkpoint responded when it was evaluated. Raises StoreError when it was not."""
        if not prompts:
            return []
        if not reading.has(table, iteration=model.iteration):
            raise StoreError(
                f"evaluation: M_{model.iteration} has no stored responses; a checkpoint is compared with what was "
                "evaluated before it; evaluate the iterations in order"
            )
        asked = prompts if shard is None else self.block(prompts, reading)
        responses = list(reading.rows(table, iteration=model.iteration, shard=shard))
        return self.aligned(asked, responses, name=f"{table.name} of iteration {model.iteration}")


@dataclass(frozen=True)
class Sides:
    """Responses to the same prompts in the same order: those of M_t, and of each baseline by its name."""

    own: Sequence[Response]
    baselines: dict[str, Sequence[Response]]


def baselines_of(roles: Roles) -> dict[str, Checkpoint]:
    """What M_t is compared with: M_{t-1}, M_0, and the best one where it is neither of the two."""
    found = {"previous": roles["previous"], "initial": roles["initial"]}
    third = roles["best"].iteration not in {model.iteration for model in found.values()}
    return found | ({"best": roles["best"]} if third else {})
