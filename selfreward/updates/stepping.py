"""The optimizer steps of an update, with saves in between, from which a killed update continues.

An update that is asked to stop saves at the end of the step that it takes, so that nothing of it is repeated.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from selfreward import signals
from selfreward.errors import StoreError
from selfreward.updates import saves
from selfreward.updates.batches import Batch, PairBlock
from selfreward.updates.processes import broadcast_from_main

if TYPE_CHECKING:
    from selfreward.updates.trainer import Logps, Trainer

IsAsked = Callable[[], bool]
"""Whether the update is asked to stop; the main process decides for all."""


def take_steps(
    trainer: "Trainer", pairs: PairBlock, reference: "Logps", plan: Sequence[Batch], *, folder: Path, is_asked: IsAsked
) -> tuple[float, float]:
    """Take all steps of `plan`, or the steps after the newest save in `folder`.

    Returns the seconds of the steps before that save, and of all steps.
    """
    seconds_before = _resume(trainer, folder)
    started, pace = time.monotonic(), saves.Pace(trainer.section.save_every_steps)
    if broadcast_from_main(is_asked):
        stop("before its steps")
    for batch in plan[len(trainer.steps) :]:
        trainer.step(pairs, reference, batch)
        # All processes save together, and stop after the same step.
        is_due, is_stopped = broadcast_from_main(lambda: (pace.is_due(), is_asked()))
        # After the last step there is no save, unless it is asked to stop: the checkpoint is written at once.
        if is_stopped or (is_due and len(trainer.steps) < len(plan)):
            with pace.saving():
                _save(trainer, folder, seconds=seconds_before + time.monotonic() - started)
        if is_stopped:
            stop(f"after step {len(trainer.steps)}, which is saved")
    return seconds_before, seconds_before + time.monotonic() - started


def stop(when: str) -> None:
    """Raise what the received signal raises, in a child process Preempted."""
    signals.check()
    raise signals.Preempted(f"training was asked to stop {when}")


@contextlib.contextmanager
def saved_when_stopped(trainer: "Trainer", folder: Path, *, seconds: float) -> Iterator[None]:
    """Save the last step when the only process is asked to stop inside."""
    try:
        yield
    except (signals.Preempted, KeyboardInterrupt):
        _save(trainer, folder, seconds=seconds)
        raise


def _resume(trainer: "Trainer", folder: Path) -> float:
    """Continue from the newest complete save, if there is one; return the seconds that its steps took."""
    save, facts = broadcast_from_main(lambda: saves.newest(folder)) or (None, {})
    if save is None:
        return 0.0
    # Any sharded update can read any sharded save, which is of the whole model.
    if (facts["sharding"] == "none") != (trainer.sharding == "none"):
        raise StoreError(
            f"{save}: made with launch.sharding: {facts['sharding']}, and now it is {trainer.sharding}; it may not "
            f"change within an update; use {facts['sharding']} for this iteration, or remove this folder to train it "
            "from the start"
        )
    trainer.load_state(save)
    return float(facts["seconds"])


def _save(trainer: "Trainer", folder: Path, *, seconds: float) -> None:
    """Save the trainer's state; an interrupted save has no marker. Older saves are removed afterwards."""
    save = folder / f"checkpoint-{len(trainer.steps)}"
    with saves.writing(save):
        trainer.save_state(save)
        if trainer.accelerator.is_main_process:
            saves.mark_complete(save, step=len(trainer.steps), seconds=seconds, sharding=trainer.sharding)
            saves.remove_others(save)
