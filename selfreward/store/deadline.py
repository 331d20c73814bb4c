"""The end of the time that a process has: no shard is begun that cannot end before it.

How long a shard takes is the mean of the finished ones of its stage. A shard that was dropped at the end of the attempt
before takes longer than what was spent on it.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean
from typing import Any, Final, NamedTuple

from selfreward import signals
from selfreward.errors import LaunchError, OutOfTimeError, StoreError

DROPPED: Final = "dropped"
"""The event of a shard that a signal stopped, with the seconds that were spent on it."""
ATTEMPTS: Final = ("started", "resumed")
"""The events with which an attempt begins."""
_LONGER: Final = 1.05  # than what was spent on a dropped shard, which needs more than that


class Needed(NamedTuple):
    """Seconds for a shard, and how that is known."""

    seconds: float
    known_by: str


class Deadline:
    """`end` is in seconds since 1970; None: no limit. `has_worked`: whether this attempt has begun anything."""

    def __init__(self, end: float | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._end, self._now, self.has_worked = end, now, False

    def check(self, manifest: Mapping[str, Any], iteration: int, stage: str, shard: int) -> None:
        """Return when a shard may be begun, as one of an unknown length always may.

        Raises OutOfTimeError when it would not end in time, but may in another attempt; and LaunchError when this
        attempt has begun nothing yet, so that no other one with this limit would end it either.
        """
        if self._end is None:
            return
        left = self._end - self._now()
        needed = needed_for(manifest, iteration, stage, shard)
        is_first, self.has_worked = not self.has_worked, True
        if needed is None or left >= needed.seconds:
            return
        found = f"{stage}, shard {shard}: takes {needed.known_by}, and {_seconds(max(0.0, left))} are left"
        if is_first:
            raise LaunchError(
                f"{found} at the start of this attempt, so no attempt of this length would end it; the time limit must "
                "be enough for one shard and the start of the engine; raise launch.slurm.time (or the limit of your "
                "own job), or start a new run with a lower iterations.shard_prompts; then give the command again"
            )
        raise OutOfTimeError(
            f"{found} before the time limit, so it was not begun; all finished work is stored; the same command resumes"
        )


@contextmanager
def noted_when_dropped(record_event: Callable[..., None], iteration: int, stage: str, shard: int) -> Iterator[None]:
    """Record the seconds that were spent on a shard which a signal stops."""
    start = time.monotonic()
    try:
        yield
    except BaseException:  # whatever the error is, a signal before it is its cause
        if signals.received():
            spent = round(time.monotonic() - start, 3)
            with suppress(StoreError):
                record_event(DROPPED, iteration=iteration, stage=stage, shard=shard, seconds=spent)
        raise


def needed_for(manifest: Mapping[str, Any], iteration: int, stage: str, shard: int) -> Needed | None:
    """Return what a shard needs by the finished ones of its stage or by what was spent on it; None if unknown."""
    found: list[Needed] = []
    if finished := [*_finished(manifest["files"], stage)]:
        found.append(Needed(mean(finished), f"about {_seconds(mean(finished))}, as finished ones of this stage did"))
    place = {"what": DROPPED, "iteration": iteration, "stage": stage, "shard": shard}
    for event in _attempt_before(manifest["events"]):
        if place.items() <= event.items():
            spent = float(event["seconds"])
            found.append(Needed(_LONGER * spent, f"more than {_seconds(spent)}, after which it was dropped before"))
    return max(found, default=None)


def _attempt_before(events: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the events of the attempt before this one: older ones may have met another trouble, such as a dead
    endpoint, and a person who gives the command again shall not be refused for it."""
    starts = [0, *(number for number, event in enumerate(events) if event["what"] in ATTEMPTS)]
    return events[starts[-2] : starts[-1]] if len(starts) > 2 else ()


def _finished(files: Mapping[str, Mapping[str, Any]], stage: str) -> Iterator[float]:
    """Yield the seconds of each finished shard; those of a complete table have its mean."""
    for name, entry in files.items():
        parts = Path(name).parts
        if parts[1] == f"{stage}.parquet" and (number := len(entry["shard_records"])):
            yield from [entry["seconds"] / number] * number
        elif parts[1] == stage and len(parts) == 3:
            yield entry["seconds"]


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds < 10 else f"{seconds:,.0f} s"
