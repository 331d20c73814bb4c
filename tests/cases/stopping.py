"""An update that signals stop, and its continuation, for the tests of both ways to run it."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from cases.training import SECTION

from selfreward import signals
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings

# 30 steps, and no save by itself.
SETTINGS = Settings(
    training=SECTION.model_copy(update={"num_epochs": 10, "save_every_steps": 10_000}), engine_dtype="bfloat16"
)
WEIGHTS = "checkpoint/model.safetensors"
Train = Callable[..., dict[str, Any]]


class Sender:
    """Sends signals to this process once, when the report has come to a point; keeps the steps that are reported."""

    def __init__(self, phase: str, done: int, *numbers: signal.Signals) -> None:
        self._point, self._numbers, self.steps = (phase, done), numbers, list[int]()

    def __call__(self, phase: str, done: int, *_: Any) -> None:
        if phase == "update":
            self.steps.append(done)
        if phase == self._point[0] and done >= self._point[1]:
            numbers, self._numbers = self._numbers, ()
            for number in numbers:
                os.kill(os.getpid(), number)


def stopped(train: Train, job: TrainingJob, sender: Sender) -> type[BaseException]:
    with signals.raised(), pytest.raises((signals.Preempted, KeyboardInterrupt)) as caught:
        train(job, SETTINGS, report=sender)
    return caught.type


def saved(job: TrainingJob) -> list[str]:
    return [path.parent.name for path in job.work_folder.glob("saves/*/complete.json")]


def assert_resumed(train: Train, job: TrainingJob, undisturbed: dict[str, Any], expected: TrainingJob) -> list[int]:
    """Continue in a new call, compare with the undisturbed update, and return the steps that were taken again."""
    steps = Sender("", 0)
    with signals.raised():
        metrics = train(job, SETTINGS, report=steps)
    assert metrics["steps"] == undisturbed["steps"]
    assert (job.work_folder / WEIGHTS).read_bytes() == (expected.work_folder / WEIGHTS).read_bytes()
    return steps.steps
