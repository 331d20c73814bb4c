"""The parts of an iteration: stages, gates, updates and probes, in the order in which they run.

A step is data: its name, the tables it reads, the models it queries, and a function that does the work. `compose.py`
composes an iteration, `running.py` runs it, `plan` sums its requests. None of the three depends on what a step does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import dropwhile
from pathlib import Path
from typing import Any, Generic, Literal, Protocol

from selfreward.records import Checkpoint, Evaluation
from selfreward.roles import RESERVED, Roles
from selfreward.tables import COUNTS, DECISION, R, Table
from selfreward.workload import Lengths, Requests, UpdateWork

Scope = Literal["shard", "so_far", "iteration", "earlier"]


class Stored(Protocol):
    """The part of the run folder that steps may read."""

    def has(self, iteration: int, table: Table[Any]) -> bool:
        """Return whether the table is complete."""

    def read(self, iteration: int, table: Table[R], shard: int | None = None, *, tokens: bool = True) -> Iterator[R]:
        """Return the records of a table or of one shard. Raises StoreError when there are none."""

    def num_shards(self, iteration: int, table: Table[Any]) -> int: ...


@dataclass(frozen=True)
class Read:
    """A table that a step reads.

    `shard`: the current shard. `so_far`: the shards before it. `iteration`: all shards of this iteration. `earlier`:
    the tables of past iterations. `if_made`: read the table if another step needs it, but do not cause it to be made.
    """

    table: Table[Any]
    scope: Scope = "shard"
    if_made: bool = False


@dataclass(frozen=True)
class Reading:
    """The input of a step: the iteration, its roles, the tables that the step declared, and the current `shard`."""

    iteration: int
    roles: Roles
    reads: Sequence[Read]
    stored: Stored
    shard: int = 0

    def rows(
        self, table: Table[R], *, iteration: int | None = None, shard: int | None = None, tokens: bool = True
    ) -> Iterator[R]:
        """Return the records of a table within the declared scope; none when the table was not made.

        `shard` selects one shard: the current one, or any shard of a table declared with scope `iteration`.
        `iteration` selects a past iteration. `tokens=False` leaves token ids and log-probabilities out, which saves
        most of the time. Raises LookupError for an undeclared read.
        """
        read = partial(self.stored.read, tokens=tokens)
        if iteration is not None:
            self._require(table, "earlier")
            return read(iteration, table, shard)
        declared = self._declared(table)
        if "so_far" in declared and shard is None:
            return (row for k in range(self.shard) for row in read(self.iteration, table, k))
        if "shard" in declared and shard in (None, self.shard):
            shard = self.shard
        else:
            self._require(table, "iteration")
        return read(self.iteration, table, shard) if self.stored.has(self.iteration, table) else iter(())

    def has(self, table: Table[Any], *, iteration: int) -> bool:
        """Return whether a past iteration made a table. Raises LookupError as `rows` does."""
        self._require(table, "earlier")
        return self.stored.has(iteration, table)

    def num_shards(self, table: Table[Any]) -> int:
        """Return the number of shards of a table declared with scope `iteration`. Raises LookupError as `rows` does."""
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
    """A step that makes a table, shard by shard.

    `queries` are the roles and models that it may query, and `max_requests` returns an upper bound on the requests to
    them. The stage has `num_shards`, or as many as the first table that it reads by shard. `only_if_read`: the stage is
    left out unless a later step reads its table. `only_if` decides whether it is due. `tally` counts its records, read
    without token ids, for the funnel. `check` raises StoreError when a resumed run would make records that differ from
    the stored ones.
    """

    table: Table[R]
    make: Callable[[Reading], Iterable[R]]
    reads: tuple[Read, ...] = ()
    queries: frozenset[str] = frozenset()
    max_requests: Callable[[Lengths], Sequence[Requests]] = _nothing
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
        """The table that sets the stage's number of shards, unless the stage sets its own."""
        return next((read.table for read in self.reads if read.scope == "shard" and not read.if_made), None)


@dataclass(frozen=True)
class Gate:
    """The step that decides whether there is something to learn from; if not, the remaining steps are skipped.

    `may_train` takes the counts of the earlier stages and the evaluations of the earlier probes, by name.
    """

    may_train: Callable[[Mapping[str, int], Mapping[str, Evaluation]], bool]


@dataclass(frozen=True)
class Block:
    """The input of one call of a learner: the files of the tables that its update reads, and the weights by role.

    Training starts from `start`; `first` are the role's weights before any update. `work_folder` belongs to this update
    and survives a kill, so that training resumes from it.
    """

    iteration: int
    files: Mapping[str, Path]
    roles: Roles
    start: Checkpoint
    first: Checkpoint
    work_folder: Path


class Learner(Protocol):
    """The state of training, open for one iteration, or for a complete run that updates at every step."""

    def learn(self, block: Block) -> Mapping[str, Any]:
        """Take the optimizer steps of a block; return metrics. Raises TrainingError."""

    def save(self, folder: Path) -> None:
        """Save the current weights as the model folder `folder`, which exists only once it is complete."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Update:
    """A step that trains new weights of `role` on complete tables of the iteration.

    Its metrics are stored as `iteration-NN/NAME.json`. `max_work` returns an upper bound on its computation.
    """

    name: str
    role: str
    reads: tuple[Read, ...]
    open: Callable[[], Learner]
    max_work: Callable[[Lengths], UpdateWork]


@dataclass(frozen=True)
class Probe:
    """A measurement. Its stages run first; `measure` reads their tables and returns `iteration-NN/NAME.json`.

    It reads the complete tables of its stages, their tables of past iterations, and `reads`. `when`: in order among the
    steps; on request, when a decision is inconclusive; or once per run, when it stops.
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
    """The steps of iteration `number`. `recipe_text` is the recipe used in it, with all interventions.

    Raises ValueError for inconsistent steps: two with the same name, one that reads a table that no step makes, one
    without a number of shards, or one after the gate that the funnel would have to count.
    """

    number: int
    steps: tuple[Step, ...]
    recipe_text: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(_needed(self.steps)))
        made: set[str] = set()
        names = [COUNTS, DECISION]
        if taken := RESERVED & {update.role for update in self.updates}:
            raise ValueError(f"{', '.join(sorted(taken))}: the run sets the weights of this role; update another role")
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
                raise ValueError(f"{step.name}: an update reads complete tables; use the scope `iteration`")
        _require_once(names)
        _require_once([*made, *map(self.folder_of, self.updates)])
        _require_counted(self.steps)

    @property
    def stages(self) -> tuple[Stage[Any], ...]:
        """All stages, including those of probes."""
        return tuple(stage for step in self.steps for stage in _stages_of(step))

    @property
    def updates(self) -> tuple[Update, ...]:
        return tuple(step for step in self.steps if isinstance(step, Update))

    def folder_of(self, update: Update) -> str:
        """The name of the update's checkpoint folder: its role's, if no later update has this role, else its own."""
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


def complete_tables(stages: Sequence[Stage[Any]]) -> tuple[Read, ...]:
    """Return reads of the complete tables that these stages make, and of past iterations' tables that they read."""
    earlier = dict.fromkeys(read for stage in stages for read in stage.reads if read.scope == "earlier")
    return (*(Read(stage.table, "iteration") for stage in stages), *earlier)


def _require(reader: str, reads: Sequence[Read], made: Set[str]) -> None:
    for read in reads:
        own = read.scope == "so_far" and read.table.name == reader
        if not (read.if_made or own or read.scope == "earlier" or read.table.name in made):
            raise ValueError(f"{reader} reads {read.table.name}, which no step before it makes")


def _require_shards(stage: Stage[Any]) -> None:
    if stage.num_shards is None and not stage.sharded_by:
        raise ValueError(f"{stage.name}: no table is read by shard and num_shards is not set; set one of the two")


def _require_once(names: Sequence[str]) -> None:
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))}: two files or folders have this name; rename one")


def _require_counted(steps: Sequence[Step]) -> None:
    """Refuse stages after the gate that the funnel counts: the counts are made once, at the gate."""
    after_gate = list(dropwhile(lambda step: not isinstance(step, Gate), steps))[1:]
    for step in after_gate:
        if isinstance(step, Gate) or (isinstance(step, Stage) and step.tally is not _no_counts):
            raise ValueError("a stage with a tally, or a second gate, follows the gate; the funnel ends at the gate")


def _needed(steps: Sequence[Step]) -> list[Step]:
    """Return the steps in order, without the `only_if_read` stages that no later step reads."""
    kept: list[Step] = []
    read: set[str] = set()
    for step in reversed(steps):
        if isinstance(step, Stage) and step.only_if_read and step.name not in read:
            continue
        kept.append(step)
        reads = [*getattr(step, "reads", ()), *(r for stage in _stages_of(step) for r in stage.reads)]
        read |= {r.table.name for r in reads if not r.if_made}
    return kept[::-1]
