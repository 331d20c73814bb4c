"""The replicas of an engine: started, given work, and replaced when they are lost.

A replica is lost when its process or its node ends. Another one takes its number, loads and proves the weights in use,
and its block is computed again. No fault is repeated for ever: a block that ends two replicas ends the run, and a
replica that is lost three times without finishing a block in between is not replaced.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from selfreward.engines.pool.replica import Loaded
from selfreward.errors import EngineError
from selfreward.ray_cluster import ray
from selfreward.records import Checkpoint

MAX_DEATHS_OF_A_BLOCK: Final = 2
MAX_LOSSES_IN_A_ROW: Final = 3
POLL_S: Final = 1.0
PLACEMENT_S: Final = 300.0
"""A cluster that has room for a replica must have started its process by then; loading takes as long as it takes."""
_UNWANTED: Final = "unwanted"
RESUME: Final = "run the same command again to resume from the last finished shard"
LOGGER = logging.getLogger("selfreward.engines")


@dataclass(eq=False)
class Slot:
    """A replica. `task` is what it does: place, load, blocks or another method's name; it has a `ref` meanwhile.

    It has a `place` once its process runs, and `facts` of its engine once that has loaded weights.
    """

    number: int
    actor: Any
    began: float = field(default_factory=time.monotonic)
    place: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    blocks: tuple[int, ...] = ()
    ref: Any = None

    def begin(self, task: str, ref: Any, *, blocks: tuple[int, ...] = ()) -> None:
        self.task, self.ref, self.blocks = task, ref, blocks

    @property
    def name(self) -> str:
        return f"replica {self.number} on {self.place or 'no node yet'}"


@dataclass(frozen=True)
class Done:
    """What a replica has finished. `is_lost`: it ended instead."""

    slot: Slot
    task: str
    blocks: tuple[int, ...]
    value: Any = None
    is_lost: bool = False


class Replicas:
    """`start` makes an actor, `capacity` says how many the cluster can hold; `wanted` and at least `minimum` run."""

    def __init__(self, start: Callable[[], Any], *, capacity: Callable[[], int], wanted: int, minimum: int) -> None:
        self._start, self._capacity = start, capacity
        self._wanted, self._minimum = wanted, minimum
        self._slots: list[Slot] = []
        self._losses: Counter[int] = Counter()
        self._checkpoint: Checkpoint | None = None
        self._kept: Mapping[str, Any] = {}
        self.lost: list[str] = []

    @property
    def ready(self) -> list[Slot]:
        """The replicas that have loaded weights, in the order of their numbers."""
        return sorted((slot for slot in self._slots if slot.facts), key=lambda slot: slot.number)

    def load(self, checkpoint: Checkpoint, *, kept: Mapping[str, Any], at_most: int | None = None) -> list[Loaded]:
        """Load and prove the weights on all replicas; start those that are missing, `at_most` this many in total."""
        self._checkpoint, self._kept = checkpoint, kept
        for slot in self._slots:
            if slot.place is not None:  # with or without weights: the last load may have failed
                slot.begin("load", slot.actor.load.remote(checkpoint, kept))
        loaded: list[Loaded] = []
        while self._tend(at_most) or any(slot.ref is not None for slot in self._slots):
            loaded += [done.value for done in self._finished() if done.task == "load" and not done.is_lost]
        return loaded

    def map(
        self, method: str, blocks: Sequence[Sequence[Any]], *, several: bool, on_done: Callable[[int], Any]
    ) -> list[Any]:
        """Return the results of a method of the actor for each block of requests, given to replicas without work.

        With `several`, a replica gets many blocks at once as one call, fewer towards the end: half of an even share.
        """
        todo, results, deaths = deque(range(len(blocks))), dict[int, Any](), Counter[int]()
        try:
            while len(results) < len(blocks):
                self._tend()
                ready = self.ready
                for slot in ready:
                    if slot.ref is None and todo:
                        taken = _taken(todo, deaths, at_most=len(todo) // (2 * len(ready)) if several else 1)
                        requests = [request for index in taken for request in blocks[index]]
                        slot.begin("blocks", getattr(slot.actor, method).remote(requests), blocks=taken)
                for done in self._finished():
                    if done.is_lost:
                        deaths.update(done.blocks)
                        _require_harmless(done.blocks, deaths, len(blocks), self.lost)
                        todo.extendleft(reversed(done.blocks))
                    elif done.blocks:
                        values = iter(done.value)
                        results.update((index, list(islice(values, len(blocks[index])))) for index in done.blocks)
                        self._losses[done.slot.number] = 0
                        on_done(len(done.blocks))
        finally:
            for slot in self._slots:
                if slot.blocks:  # after an error: their results belong to no later call
                    slot.task, slot.blocks = _UNWANTED, ()
        return [results[index] for index in range(len(blocks))]

    def each(self, method: str) -> list[Any]:
        """Call a method on all replicas and wait for all; those that start are waited for, and none is replaced."""
        for slot in [slot for slot in self._slots if slot.place is None]:
            self._remove(slot)
        while any(slot.ref is not None for slot in self._slots):
            list(self._finished())
        for slot in self.ready:
            slot.begin(method, getattr(slot.actor, method).remote())
        found = []
        while any(slot.ref is not None for slot in self._slots):
            found += [done.value for done in self._finished() if not done.is_lost]
        return found

    def close(self) -> None:
        for slot in list(self._slots):
            self._remove(slot)

    # Work that has ended, well or not.

    def _finished(self) -> Iterator[Done]:
        """Wait until a replica has finished something, a second at most. Raises what a replica has raised."""
        refs = {slot.ref: slot for slot in self._slots if slot.ref is not None}
        if not refs:
            time.sleep(POLL_S)
            return
        for ref in ray().wait(list(refs), num_returns=1, timeout=POLL_S)[0]:
            yield self._done(refs[ref])

    def _done(self, slot: Slot) -> Done:
        task, blocks, ref = slot.task or "", slot.blocks, slot.ref
        slot.task, slot.blocks, slot.ref = None, (), None
        try:
            value = ray().get(ref)
        except ray().exceptions.RayTaskError as error:
            if task == _UNWANTED:
                return Done(slot, task, ())
            raise error.cause from error
        except ray().exceptions.RayError as error:
            _require_startable(error)
            self._lose(slot, error)
            return Done(slot, task, blocks, is_lost=True)
        if task == "place":
            slot.place = value
            slot.begin("load", slot.actor.load.remote(self._checkpoint, self._kept))
        elif task == "load":
            slot.facts = value.facts
        return Done(slot, task, blocks, value)

    def _lose(self, slot: Slot, error: Exception) -> None:
        self.lost.append(f"{slot.name} ({type(error).__name__})")
        LOGGER.warning("engine: %s was lost; its part is computed again", self.lost[-1])
        self._losses[slot.number] += 1
        if self._losses[slot.number] >= MAX_LOSSES_IN_A_ROW:
            self._wanted -= 1
        self._remove(slot)

    def _remove(self, slot: Slot) -> None:
        self._slots.remove(slot)
        ray().kill(slot.actor)

    # The number of replicas.

    def _tend(self, at_most: int | None = None) -> bool:
        """Start replicas that are missing. Return whether one was; raises EngineError when too few can run."""
        wanted = self._wanted if at_most is None else min(at_most, self._wanted)
        unplaced = [slot for slot in self._slots if slot.place is None]
        if len(self._slots) >= wanted and not unplaced and self._wanted >= self._minimum:
            return False
        capacity = self._capacity()
        if min(self._wanted, capacity) < self._minimum:
            raise self._too_few(capacity)
        for slot in unplaced:
            if len(self._slots) > capacity:  # its place went with a node
                self._remove(slot)
            elif time.monotonic() - slot.began > PLACEMENT_S:
                self._give_up(slot)
        started = min(wanted, capacity) - len(self._slots)
        for _ in range(started):
            number = min(set(range(len(self._slots) + 1)) - {slot.number for slot in self._slots})
            slot = Slot(number, self._start())
            slot.begin("place", slot.actor.place.remote())
            self._slots.append(slot)
        return started > 0

    def _give_up(self, slot: Slot) -> None:
        self._remove(slot)
        self._wanted -= 1
        if self._wanted < self._minimum:
            raise EngineError(
                f"engine.replicas: the cluster has started {len(self._slots)} replicas, and no other within "
                f"{PLACEMENT_S:.0f} seconds; at least engine.min_replicas, which is {self._minimum}, are needed; "
                f"others may use its GPUs (see `ray status`): wait for them, or lower min_replicas; then {RESUME}"
            )

    def _too_few(self, capacity: int) -> EngineError:
        lost = f" after {', '.join(self.lost)} were lost" if self.lost else ""
        return EngineError(
            f"engine.replicas: {min(self._wanted, capacity)} replicas can run{lost}; at least engine.min_replicas, "
            f"which is {self._minimum}, are needed; see to the lost nodes, or lower engine.min_replicas; then {RESUME}"
        )


def _require_startable(error: Exception) -> None:
    """Raise EngineError when Python could not even make a replica, which is the same each time."""
    lines = str(error).strip().splitlines() or [""]
    if "creation task" in lines[0]:
        cause = lines[-1].strip()[:200]
        raise EngineError(
            f"engine.replicas: a replica cannot start ({cause}); all nodes need the same packages, with selfreward in "
            f"the same version; install them there; then {RESUME}"
        )


def _taken(todo: deque[int], deaths: Mapping[int, int], *, at_most: int) -> tuple[int, ...]:
    """Take the next blocks; one that was computed when a replica was lost is computed alone."""
    taken = [todo.popleft()]
    while todo and len(taken) < at_most and not deaths[taken[0]] and not deaths[todo[0]]:
        taken.append(todo.popleft())
    return tuple(taken)


def _require_harmless(blocks: Sequence[int], deaths: Mapping[int, int], num_blocks: int, lost: Sequence[str]) -> None:
    """Raise EngineError for a block that has ended two replicas: it would end the others too."""
    if not (deadly := [block for block in blocks if deaths[block] >= MAX_DEATHS_OF_A_BLOCK]):
        return
    raise EngineError(
        f"engine.replicas: block {deadly[0] + 1} of {num_blocks} has ended {deaths[deadly[0]]} replicas "
        f"({', '.join(lost[-MAX_DEATHS_OF_A_BLOCK:])}); a block must not end an engine; memory may be short: lower "
        f"engine.batch_tokens (transformers) or engine.max_num_seqs; then {RESUME}"
    )
