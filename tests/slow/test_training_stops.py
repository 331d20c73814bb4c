"""A signal in training that runs in child processes: they save at the end of their step; the same bytes."""

import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from cases.ranks import TOLERANCE, curve
from cases.stopping import SETTINGS, Sender, assert_resumed, saved, stopped
from cases.training import make_job, make_pairs

from selfreward import signals
from selfreward.recipe import LaunchSection
from selfreward.updates.job import TrainingJob
from selfreward.updates.launcher import train_in_children
from selfreward.updates.update import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    return make_job(tmp_path_factory.mktemp("stop"), make_pairs(12))


@pytest.fixture(scope="module")
def undisturbed(job: TrainingJob) -> dict[str, Any]:
    return train(job, SETTINGS)


class Preemption(Sender):
    """Slurm sends SIGTERM to every process of a job, the driver among them."""

    def __call__(self, phase: str, done: int, *progress: Any) -> None:
        if phase == self._point[0] and done >= self._point[1] and self._numbers:
            pids = [str(child.pid) for child in psutil.Process().children(recursive=True)]
            subprocess.run(["kill", *pids], check=True)
        super().__call__(phase, done, *progress)


def test_a_child_does_not_end_by_a_signal_that_preempts_its_whole_job(
    job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    preempted = replace(job, work_folder=tmp_path / "work")
    assert stopped(train_in_children, preempted, Preemption("update", 3, signal.SIGTERM)) is signals.Preempted
    assert len(saved(preempted)) == 1
    assert_resumed(train_in_children, preempted, undisturbed, job)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_a_step(
    job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path, number: signal.Signals
) -> None:
    stopping, sender = replace(job, work_folder=tmp_path / "work"), Sender("update", 7, number)
    assert stopped(train_in_children, stopping, sender) is (
        KeyboardInterrupt if number == signal.SIGINT else signals.Preempted
    )
    (save,) = saved(stopping)
    last = int(save.removeprefix("checkpoint-"))
    assert last >= 7 and last == sender.steps[-1]
    assert not (stopping.work_folder / "checkpoint").exists()
    assert assert_resumed(train_in_children, stopping, undisturbed, job) == list(range(last + 1, 31))


@pytest.mark.parametrize("phase", ["reference", "measure"])
def test_a_signal_in_a_pass_without_steps(
    job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path, phase: str
) -> None:
    """No step is lost; the child may be further on when it is asked."""
    stopping = replace(job, work_folder=tmp_path / phase)
    stopped(train_in_children, stopping, Sender(phase, 1, signal.SIGUSR1))
    steps = assert_resumed(train_in_children, stopping, undisturbed, job)
    assert steps == [] if phase == "measure" else steps[-1] == 30


def test_two_ranks_stop_after_the_same_step(job: TrainingJob, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    stopping, sender = replace(job, work_folder=tmp_path / "work"), Preemption("update", 7, signal.SIGTERM)
    two = SETTINGS.model_copy(update={"launch": LaunchSection(processes_per_node=2)})
    with signals.raised(), pytest.raises(signals.Preempted):
        train_in_children(stopping, two, report=sender)
    assert saved(stopping) == [f"checkpoint-{sender.steps[-1]}"]
    steps = Sender("", 0)
    metrics = train_in_children(stopping, two, report=steps)
    assert steps.steps == list(range(sender.steps[-1] + 1, 31))
    assert curve(metrics) == pytest.approx(curve(undisturbed), abs=TOLERANCE)
