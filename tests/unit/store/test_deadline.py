"""No shard is begun that cannot end before the time limit; a limit shorter than a shard is an error, not a loop."""

import os
import signal
from pathlib import Path

import pytest

from selfreward import signals
from selfreward.errors import LaunchError, OutOfTimeError
from selfreward.records import Message, Prompt
from selfreward.store import Store
from selfreward.store.deadline import Deadline
from selfreward.tables import PROMPTS


class Clock:
    """The time of a run whose shards take as long as they say."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def prompt(shard: int) -> list[Prompt]:
    return [Prompt(f"p{shard}", (Message("user", "say"),))]


def manifest(shards: dict[str, float], *events: dict[str, object]) -> dict[str, object]:
    return {"files": {name: {"seconds": s} for name, s in shards.items()}, "events": list(events)}


def test_a_shard_is_begun_while_the_mean_of_its_stage_fits() -> None:
    clock = Clock()
    deadline = Deadline(1100.0, now=clock)
    known = manifest({"iteration-01/responses/00000.parquet": 20.0, "iteration-01/responses/00001.parquet": 40.0})
    deadline.check(known, 1, "responses", 2)
    clock.now = 1070.0
    deadline.check(known, 1, "responses", 3)
    clock.now = 1070.1
    with pytest.raises(OutOfTimeError, match=r"responses, shard 4: takes about 30 s.* and 30 s are left") as caught:
        deadline.check(known, 1, "responses", 4)
    assert caught.value.exit_code == signals.PREEMPTED
    deadline.check(known, 1, "judgments", 0)  # nothing is known of it


def test_complete_tables_of_other_iterations_count() -> None:
    table = {"seconds": 90.0, "shard_records": [4, 4, 0]}
    known = {"files": {"iteration-01/responses.parquet": table}, "events": []}
    Deadline(1030.0, now=lambda: 1000.0).check(known, 2, "responses", 0)
    with pytest.raises(LaunchError, match="about 30 s"):
        Deadline(1029.0, now=lambda: 1000.0).check(known, 2, "responses", 0)


def test_a_limit_shorter_than_one_shard_is_an_error_with_the_numbers() -> None:
    known = manifest({"iteration-01/responses/00000.parquet": 300.0})
    with pytest.raises(LaunchError, match=r"takes about 300 s.* and 120 s are left at the start") as caught:
        Deadline(1120.0, now=lambda: 1000.0).check(known, 1, "responses", 1)
    assert caught.value.exit_code == 4, "a job that requeues itself on 75 ends"
    assert "launch.slurm.time" in str(caught.value)


def test_an_attempt_that_has_trained_is_followed_by_another_one(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.make_shard(1, PROMPTS, 0, lambda: prompt(0))
        store.deadline = Deadline(0.0)
        store.read_or_make_json(1, "training", lambda: 1)
        with pytest.raises(OutOfTimeError):
            store.make_shard(1, PROMPTS, 1, lambda: prompt(1))


def test_without_a_limit_nothing_is_refused(tmp_path: Path) -> None:
    Deadline().check(manifest({"iteration-01/responses/00000.parquet": 1e9}), 1, "responses", 1)


def drop(store: Store) -> None:
    """Begin shard 0, which a signal stops."""
    store.record_event("resumed")

    def make() -> list[Prompt]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return prompt(0)

    with pytest.raises(signals.Preempted), signals.raised():
        store.make_shard(1, PROMPTS, 0, make)
    with signals.raised():
        pass  # the next process has received none
    (dropped,) = [event for event in store.manifest["events"][-1:] if event["what"] == "dropped"]
    dropped["seconds"] = 100.0


def test_a_shard_that_was_dropped_after_the_whole_limit_is_not_begun_for_ever(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        drop(store)
        store.record_event("resumed")
        store.deadline = Deadline(1100.0, now=lambda: 1000.0)
        with pytest.raises(LaunchError, match=r"more than 100 s.*100 s are left at the start"):
            store.make_shard(1, PROMPTS, 0, lambda: prompt(0))
        assert not store.has_begun(1)


def test_a_dropped_shard_is_begun_again_when_there_is_more_time_or_a_person_repeats_the_command(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        drop(store)
        store.record_event("resumed")
        Deadline(1200.0, now=lambda: 1000.0).check(store.manifest, 1, PROMPTS.name, 0)
        store.record_event("resumed")  # after the refusal
        store.deadline = Deadline(1100.0, now=lambda: 1000.0)
        store.make_shard(1, PROMPTS, 0, lambda: prompt(0))
        assert [*store.read(1, PROMPTS)] == prompt(0)
