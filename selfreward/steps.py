"""What an iteration is made of: stages, gates, updates and probes, in the order in which they run.

A step is data: what it is called, what it reads, whom it asks, and a function that does the work. `compose.py` puts an
iteration together, `running.py` runs it, `plan` adds up what it asks. None of the three knows what a step does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

from selfreward.records import Checkpoint, Evaluation
from selfreward.roles import RESERVED, Roles
from selfreward.tables import COUNTS, DECISION, R, Table
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
        """The records of a table as far as the step declared it; none when it was not due.

        Of one `shard`: that at hand, or any of a table that is declared whole. Of a past `iteration` if one is given.
        Raises LookupError for what the step did not declare.
        """
        if iteration is not None:
            self._require(table, "earlier")
            return self.stored.read(iteration, table, shard)
        declared = self._declared(table)
        if "so_far" in declared and shard is None:
            return (row for k in range(self.shard) for row in self.stored.read(self.iteration, table, k))
        if "shard" in declared and shard in (None, self.shard):
            shard = self.shard
        else:
            self._require(table, "iteration")
        return self.stored.read(self.iteration, table, shard) if self.stored.has(self.iteration, table) else iter(())

    def has(self, table: Table[Any], *, iteration: int) -> bool:
        """Whether a past iteration made a table. Raises LookupError as `rows` does."""
        self._require(table, "earlier")
        return self.stored.has(iteration, table)

    def num_shards(self, table: Table[Any]) -> int:
        """Of a table that is declared whole. Raises LookupError as `rows` does."""
        self._require(table, "iteration")
        return self.stored.num_shards(self.iteration, table)

    def _declared(self, table: Table[Any]) -> set[Scope]:
        return {read.scope for read in self.reads if read.table.name == table.name}

    def _require(self, table: Table[Any], scope: Scope) -> None:
        if scope not in (declared := self._declared(table)):
            found = ", ".join(sorted(declared)) or "nothing"
            raise LookupError(f"{table.name}: read by scope {scope}; the step declared {found} of it; add a Read")


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
    when stored records are not those that a resumed run would make.
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

    @property
    def sharded_by(self) -> Table[Any] | None:
        """The table whose number of shards it has, unless it has its own."""
        return next((read.table for read in self.reads if read.scope == "shard" and not read.if_made), None)


@dataclass(frozen=True)
class Gate:
    """Whether there is something to learn from what was made so far; if not, the rest of the iteration is left out.

    `may_train` gets the counts of the stages and the measurements of the probes before it, by name.
    """

    may_train: Callable[[Mapping[str, int], Mapping[str, Evaluation]], bool]


@dataclass(frozen=True)
class Block:
    """What a learner gets at once: the files of the tables that its update reads, by name, and the weights by role.

    It starts from `start`; `first` is what its role was before any update. `work_folder` is the update's alone and
    survives a kill, so that training resumes inside.
    """

    iteration: int
    files: Mapping[str, Path]
    roles: Roles
    start: Checkpoint
    first: Checkpoint
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
    """Makes new weights of `role` out of whole tables of the iteration.

    `name` is that of its metrics, `iteration-NN/NAME.json`. `most`: what it computes at most.
    """

    name: str
    role: str
    reads: tuple[Read, ...]
    open: Callable[[], Learner]
    most: Callable[[Lengths], UpdateWork]


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

    Raises ValueError for steps that do not fit together: two of one name, one that reads what nobody made, one whose
    number of shards nothing says, or one behind the gate that the funnel would have to count.
    """

    number: int
    steps: tuple[Step, ...]
    recipe_text: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(_needed(self.steps)))
        made: set[str] = set()
        names = [COUNTS, DECISION]
        if taken := RESERVED & {update.role for update in self.updates}:
            raise ValueError(
                f"{', '.join(sorted(taken))}: the run alone gives this role its weights; update another one"
            )
        for step in self.steps:
            for stage in _stages_of(step):
                _require(stage.name, stage.reads, made)
                _require_shards(stage)
                made.add(stage.name)
                names.append(stage.name)
            if isinstance(step, Update | Probe):
                _require(step.name, step.reads, made)
                names.append(step.name)
            if isinstance(step, Update) and any(read.scope != "iteration" for read in step.reads):
                raise ValueError(f"{step.name}: an update reads whole tables of its iteration; use that scope")
        _require_once(names)
        _require_once([*made, *map(self.folder_of, self.updates)])
        _require_counted(self.steps)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        """All, those of probes too."""
        return tuple(stage for step in self.steps for stage in _stages_of(step))

    @property
    def updates(self) -> tuple[Update, ...]:
        return tuple(step for step in self.steps if isinstance(step, Update))

    def folder_of(self, update: Update) -> str:
        """Where its checkpoint lies in the iteration's folder: under its role, if no other of this role follows it."""
        *_, last = (other for other in self.updates if other.role == update.role)
        if update is not last:
            return update.name
        return "checkpoint" if update.role == "policy" else update.role

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


def _require_shards(stage: Stage[Any]) -> None:
    if stage.num_shards is None and not stage.sharded_by:
        raise ValueError(f"{stage.name}: it reads nothing by shard and has no num_shards; give one of the two")


def _require_once(names: Sequence[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))}: the name of two things in one folder; rename one")


def _require_counted(steps: Sequence[Step]) -> None:
    """The funnel is counted once, at the gate: what lies behind it would be missing there without a word."""
    behind = list(dropwhile(lambda step: not isinstance(step, Gate), steps))[1:]
    for step in behind:
        if isinstance(step, Gate) or (isinstance(step, Stage) and step.tally is not _no_counts):
            raise ValueError("a stage with a tally, or a second gate, behind the gate: the funnel ends at the gate")


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
