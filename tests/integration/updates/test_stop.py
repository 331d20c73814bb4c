"""A signal in training: a save at the end of the step, so that at most this step is repeated; the same bytes."""

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases.stopping import SETTINGS, Sender, assert_resumed, saved, stopped
from cases.training import make_job, make_pairs

from selfreward import signals
from selfreward.updates.job import TrainingJob
from selfreward.updates.update import train


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    return make_job(tmp_path_factory.mktemp("stop"), make_pairs(12))


@pytest.fixture(scope="module")
def undisturbed(job: TrainingJob) -> dict[str, Any]:
    return train(job, SETTINGS)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_step(
    job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    stopping, sender = replace(job, work_folder=tmp_path / "work"), Sender("update", 7, number)
    assert stopped(train, stopping, sender) is (KeyboardInterrupt if number == signal.SIGINT else signals.Preempted)
    (save,) = saved(stopping)
    last = int(save.removeprefix("checkpoint-"))
    assert last >= 7 and last == sender.steps[-1]
    assert not (stopping.work_folder / "checkpoint").exists()
    assert assert_resumed(train, stopping, undisturbed, job) == list(range(last + 1, 31))


def test_a_signal_after_the_last_step(job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    """In the last step or in the pass after it: none of the steps is repeated."""
    for point in (("update", 30), ("measure", 2)):
        stopping = replace(job, work_folder=tmp_path / point[0])
        stopped(train, stopping, Sender(*point, signal.SIGUSR1))
        assert saved(stopping) == ["checkpoint-30"]
        assert assert_resumed(train, stopping, undisturbed, job) == []


def test_a_signal_in_the_pass_before_training(job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    stopping, sender = replace(job, work_folder=tmp_path / "work"), Sender("reference", 2, signal.SIGTERM)
    stopped(train, stopping, sender)
    assert sender.steps == []
    assert_resumed(train, stopping, undisturbed, job)


def test_a_second_signal_ends_the_update_at_once(job: TrainingJob, tmp_path: Path) -> None:
    stopping = replace(job, work_folder=tmp_path / "work")
    stopped(train, stopping, Sender("update", 3, signal.SIGINT, signal.SIGTERM))
    assert len(saved(stopping)) == 0
    with signals.raised():  # nothing holds the folder any more
        assert train(stopping, SETTINGS)["num_steps"] == 30
