"""What an iteration is made of: stages, gates, updates and probes, in the order in which they run.

A step is data: what it is called, what it reads, whom it asks, and a function that does the work. `compose.py` puts an
iteration together, `loop.py` runs it, `plan` adds up what it asks. None of the three knows what a step does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

from selfreward.records import Evaluation
from selfreward.roles import Roles
from selfreward.tables import R, Table
from selfreward.workload import Lengths, Requests, UpdateWork

Scope = Literal["shard", "so_far", "iteration", "earlier"]


class Stored(Protocol):
    """What steps may ask of the run folder."""

    def has(self, iteration: int, table: Table[Any]) -> bool:
        """Whether the table is complete."""

    def read(self, iteration: int, table: Table[R], shard: int | None = None) -> Iterator[R]:
        """Its records, or those of one shard. Raises StoreError when there are none."""

    def num_shards(self, iteration: int, table: Table[Any]) -> int: ...


@dataclass(frozen=True)
class Read:
    """A table that a step reads.

    `shard`: the shard at hand. `so_far`: the shards before it. `iteration`: all of this iteration's. `earlier`: those
    of past iterations. `if_made`: taken along where somebody else wants it; alone it is no reason to make it.
    """

    table: Table[Any]
    scope: Scope = "shard"
    if_made: bool = False


@dataclass(frozen=True)
class Reading:
    """What a step sees: the iteration, its roles, and the tables that the step declared. `shard` is the one at hand."""

    iteration: int
    roles: Roles
    reads: Sequence[Read]
    stored: Stored
    shard: int = 0

    def rows(self, table: Table[R], *, iteration: int | None = None, shard: int | None = None) -> Iterator[R]:
        """The records of a table: as far as the step declared, or of one `shard` of it; none when it was not due.

        Of a past `iteration` where that is given. Raises LookupError for a table that the step did not declare.
        """
        scopes = {read.scope: read for read in self.reads if read.table.name == table.name}
        if iteration is not None:
            return self.stored.read(iteration, table, shard) if self._declared(scopes, table, "earlier") else iter(())
        if "so_far" in scopes:
            return (row for k in range(self.shard) for row in self.stored.read(self.iteration, table, k))
        read = scopes.get("shard") or self._declared(scopes, table, "iteration")
        if not self.stored.has(self.iteration, table):
            return iter(())
        return self.stored.read(self.iteration, table, self.shard if read.scope == "shard" else shard)

    def has(self, table: Table[Any], *, iteration: int) -> bool:
        """Whether a past iteration made a table."""
        return self.stored.has(iteration, table)

    def num_shards(self, table: Table[Any]) -> int:
        return self.stored.num_shards(self.iteration, table)

    @staticmethod
    def _declared(scopes: Mapping[Scope, Read], table: Table[Any], scope: Scope) -> Read:
        if scope not in scopes:
            found = ", ".join(scopes) or "nothing"
            raise LookupError(f"{table.name}: read by scope {scope}; the step declared {found} of it; add a Read")
        return scopes[scope]


def _nothing(_: Lengths) -> Sequence[Requests]:
    return ()


def _always(_: Reading) -> bool:
    return True


def _no_counts(_: Iterable[Any]) -> Mapping[str, int]:
    return {}


@dataclass(frozen=True)
class Stage(Generic[R]):
    """Makes a table, shard by shard.

    `asks` are the roles and models that it may ask, and `most` what it asks of them at most. It has `num_shards`, or
    as many as the first table that it reads by shard. `only_if_read`: it is left out unless a later step reads its
    table. `only_if` decides when it is due. `tally`: what the funnel counts of its records. `check` raises StoreError
    when stored records are not those that a run which goes on would make.
    """

    table: Table[R]
    make: Callable[[Reading], Iterable[R]]
    reads: tuple[Read, ...] = ()
    asks: frozenset[str] = frozenset()
    most: Callable[[Lengths], Sequence[Requests]] = _nothing
    num_shards: int | None = None
    only_if_read: bool = False
    only_if: Callable[[Reading], bool] = _always
    tally: Callable[[Iterable[R]], Mapping[str, int]] = _no_counts
    check: Callable[[Reading], None] | None = None

    @property
    def name(self) -> str:
        return self.table.name


@dataclass(frozen=True)
class Gate:
    """Whether there is something to learn from what was made so far; if not, the rest of the iteration is left out.

    `refuses` gets the counts of the stages and the measurements of the probes before it, by name, and returns the
    reason against going on, or "".
    """

    refuses: Callable[[Mapping[str, int], Mapping[str, Evaluation]], str]


@dataclass(frozen=True)
class Block:
    """What a learner gets at once: the files of the tables that its update reads, by name, and the weights by role.

    `work_folder` is the update's alone and survives a kill, so that training resumes inside.
    """

    iteration: int
    files: Mapping[str, Path]
    roles: Roles
    work_folder: Path


class Learner(Protocol):
    """Holds the state of training: open for one iteration, or for a whole run that updates at every step."""

    def learn(self, block: Block) -> Mapping[str, Any]:
        """Takes the optimizer steps of a block; returns metrics. Raises TrainingError."""

    def save(self, folder: Path) -> None:
        """Leaves the weights as they are now in `folder`, a model folder that has its name only when it is complete."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Update:
    """Makes new weights of `role`. `name` is that of its metrics, `iteration-NN/NAME.json`.

    `most`: what it computes at most.
    """

    name: str
    role: str
    reads: tuple[Read, ...]
    open: Callable[[], Learner]
    most: Callable[[Lengths], UpdateWork]

    @property
    def folder(self) -> str:
        """Where its checkpoint lies in the iteration's folder."""
        return "checkpoint" if self.role == "policy" else self.role


@dataclass(frozen=True)
class Probe:
    """Measures. Its stages run first; `measure` reads them and gives the metrics of `iteration-NN/NAME.json`.

    It reads the whole of what its stages made and read, and `reads` besides. `when`: in its place among the steps; only
    when a decision stays open; or once in the life of a run, when it stops.
    """

    name: str
    stages: tuple[Stage[Any], ...]
    reads: tuple[Read, ...] = ()
    measure: Callable[[Reading], Evaluation] | None = None
    when: Literal["in_order", "on_request", "at_end"] = "in_order"
    only_if: Callable[[Reading], bool] = _always


Step = Stage[Any] | Gate | Update | Probe


@dataclass(frozen=True)
class Iteration:
    """Iteration `number`, step by step. `recipe_text` is the recipe that is in force in it.

    Raises ValueError for steps that do not fit together: two of one name, or one that reads what nobody made.
    """

    number: int
    steps: tuple[Step, ...]
    recipe_text: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(_needed(self.steps)))
        made: set[str] = set()
        for step in self.steps:
            for stage in _stages_of(step):
                _require(stage.name, stage.reads, made)
                if stage.name in made:
                    raise ValueError(f"two stages make {stage.name}; a table is made once")
                made.add(stage.name)
            if isinstance(step, Update | Probe):
                _require(step.name, step.reads, made)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        """All, those of probes too."""
        return tuple(stage for step in self.steps for stage in _stages_of(step))

    @property
    def updates(self) -> tuple[Update, ...]:
        return tuple(step for step in self.steps if isinstance(step, Update))

    def probes(self, when: str) -> tuple[Probe, ...]:
        return tuple(step for step in self.steps if isinstance(step, Probe) and step.when == when)


def _stages_of(step: Step) -> tuple[Stage[Any], ...]:
    match step:
        case Stage():
            return (step,)
        case Probe():
            return step.stages
        case _:
            return ()


def whole(stages: Sequence[Stage[Any]]) -> tuple[Read, ...]:
    """All that these stages made, and what they read of past iterations."""
    earlier = dict.fromkeys(read for stage in stages for read in stage.reads if read.scope == "earlier")
    return (*(Read(stage.table, "iteration") for stage in stages), *earlier)


def _require(reader: str, reads: Sequence[Read], made: Set[str]) -> None:
    for read in reads:
        own = read.scope == "so_far" and read.table.name == reader
        if not (read.if_made or own or read.scope == "earlier" or read.table.name in made):
            raise ValueError(f"{reader} reads {read.table.name}, which no step before it makes")


def _needed(steps: Sequence[Step]) -> list[Step]:
    """All steps but the stages that nobody asked for, in order."""
    kept: list[Step] = []
    read: set[str] = set()
    for step in reversed(steps):
        if isinstance(step, Stage) and step.only_if_read and step.name not in read:
            continue
        kept.append(step)
        reads = [*getattr(step, "reads", ()), *(r for stage in _stages_of(step) for r in stage.reads)]
        read |= {r.table.name for r in reads if not r.if_made}
    return kept[::-1]
