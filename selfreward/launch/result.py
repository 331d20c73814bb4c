"""The result of a run."""

from dataclasses import dataclass
from pathlib import Path

from selfreward.records import Decision


@dataclass(frozen=True)
class RunResult:
    """`folder` contains the checkpoints and reports; `decision` is the monitor's last decision.

    `was_finished`: the run had ended before, so that nothing was computed; `note` is what the user should know then.
    """

    folder: Path
    decision: Decision
    was_finished: bool = False
    note: str = ""
