"""Runs the steps of an iteration through the store: existing results are not computed again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, assert_never

from selfreward.errors import RecipeError
from selfreward.parts import Engine
from selfreward.records import Checkpoint, Evaluation
from selfreward.roles import Roles
from selfreward.steps import Block, Gate, Iteration, Probe, Read, Reading, Stage, Update, complete_tables
from selfreward.store import Store
from selfreward.store.model_folder import stamp_of
from selfreward.tables import COUNTS, DECISION


@dataclass(frozen=True)
class Runner:
    """Runs steps on one run folder and one engine."""

    store: Store
    engine: Engine

    def run(self, iteration: Iteration, roles: Roles) -> Roles:
        """Run every step in order; return the roles after the updates.

        When a gate finds nothing to learn from, the remaining steps are skipped: nothing is trained, and M_t is
        M_{t-1}. Raises RecipeError for an update of a role that is not a model of the recipe.
        """
        if missing := [update.role for update in iteration.updates if update.role not in roles]:
            raise RecipeError(f"models: an update trains {missing[0]!r}, which is not defined; add it to `models`")
        measured: dict[str, Evaluation] = {}
        done: list[Stage[Any]] = []
        for step in iteration.steps:
            match step:
                case Stage():
                    self.stage(iteration.number, step, roles)
                    done.append(step)
                case Gate():
                    if not step.may_train(self.counts(iteration.number, done), measured):
                        break
                case Update():
                    roles = roles.updated(step.role, self.update(iteration, step, roles))
                case Probe():
                    if step.when == "in_order" and (found := self.probe(iteration.number, step, roles)):
                        measured[step.name] = found
                case _:
                    assert_never(step)
        return roles

    def stage(self, t: int, stage: Stage[Any], roles: Roles) -> None:
        """Make the shards that are not stored yet, then check stored records against the current inputs."""
        if not self.store.has(t, stage.table):
            num_shards = self._num_shards(t, stage)
            if num_shards == 0 or not stage.only_if(self._reading(t, stage.reads, roles)):
                return
            self.store.stage(t, stage.table, num_shards, partial(self._make, t, stage, roles))
        if stage.check and self.store.read_json(t, DECISION) is None:
            stage.check(self._reading(t, (Read(stage.table, "iteration"),), roles))

    def update(self, iteration: Iteration, step: Update, roles: Roles) -> Checkpoint:
        """Train new weights of a role, as a function of files. The engine sleeps meanwhile."""
        t, work_folder = iteration.number, self.store.work_folder(iteration.number, step.name)
        files = {r.table.name: self.store.path(t, r.table) for r in step.reads if self.store.has(t, r.table)}
        block = Block(t, files, roles, roles.latest(step.role), roles.first(step.role), work_folder)
        self.store.read_or_make_json(t, step.name, partial(self._learn, step, block))
        path, weights_hash = self.store.commit_checkpoint(t, iteration.folder_of(step), work_folder / "checkpoint")
        return Checkpoint(weights_hash[:16], path, t, stamp_of(path))

    def counts(self, t: int, stages: Sequence[Stage[Any]]) -> Mapping[str, int]:
        """Return the counts of the funnel from prompts to pairs."""
        stored: Mapping[str, int] = self.store.read_or_make_json(t, COUNTS, partial(self._tally, t, stages))
        return stored

    def probe(self, t: int, step: Probe, roles: Roles) -> Evaluation | None:
        """Run a probe's stages, then its measurement; None when it is not due or only makes records."""
        reading = self._reading(t, (*step.reads, *complete_tables(step.stages)), roles)
        if (stored := self.store.read_json(t, step.name)) is not None:
            return Evaluation.from_json(stored)
        if not step.only_if(reading):
            return None
        for stage in step.stages:
            self.stage(t, stage, roles)
        if step.measure is None:
            return None
        return Evaluation.from_json(
            self.store.read_or_make_json(t, step.name, partial(_measured, step.measure, reading))
        )

    def _make(self, t: int, stage: Stage[Any], roles: Roles, shard: int) -> Any:
        return stage.make(self._reading(t, stage.reads, roles, shard))

    def _learn(self, step: Update, block: Block) -> Mapping[str, object]:
        self.engine.sleep()
        with closing(step.open()) as learner:
            metrics = learner.learn(block)
            learner.save(block.work_folder / "checkpoint")
        return metrics

    def _tally(self, t: int, stages: Sequence[Stage[Any]]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for stage in stages:
            if self.store.has(t, stage.table):
                counts.update(stage.tally(self.store.read(t, stage.table, tokens=False)))
        return counts

    def _num_shards(self, t: int, stage: Stage[Any]) -> int:
        """Return the number of shards: the stage's own, or that of the table it reads by shard (0 without it)."""
        table = stage.sharded_by
        if stage.num_shards is not None or table is None:
            return stage.num_shards or 0
        return self.store.num_shards(t, table) if self.store.has(t, table) else 0

    def _reading(self, t: int, reads: Sequence[Read], roles: Roles, shard: int = 0) -> Reading:
        return Reading(t, roles, tuple(reads), self.store, shard)


def _measured(measure: Any, reading: Reading) -> dict[str, Any]:
    return asdict(measure(reading))
