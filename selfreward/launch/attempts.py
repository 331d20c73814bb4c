"""The logs of a run's attempts, `logs/` in the run folder: one file per start of the program, never written over."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from selfreward.store.files import explain_os_errors

LOGS: Final = "logs"
LOG_VARIABLE: Final = "SELFREWARD_LOG"
"""Set by a batch script whose output is the log of the attempt."""
_LOCAL: Final = re.compile(r"local-([0-9]+)\.log")
_ATTEMPT: Final = re.compile(r"local-[0-9]+\.log|slurm-[0-9_]+-[0-9]+\.log")


def new_local_log(folder: Path) -> Path | None:
    """Create the log of this attempt; None where a batch job keeps one. Raises StoreError."""
    logs = folder / LOGS
    if (given := os.environ.get(LOG_VARIABLE)) and Path(given).parent == logs.absolute():
        return None
    with explain_os_errors(logs):
        logs.mkdir(parents=True, exist_ok=True)
        found = (_LOCAL.fullmatch(path.name) for path in logs.iterdir())
        path = logs / f"local-{max((int(each[1]) for each in found if each), default=0) + 1:02d}.log"
        path.touch(exist_ok=False)
    return path


def newest_log(folder: Path, job: str | None = None) -> Path | None:
    """Return the log of the newest attempt, or of that of a job; None before the first."""
    found: list[tuple[float, Path]] = []
    with suppress(OSError):
        for path in (folder / LOGS).iterdir():
            if _ATTEMPT.fullmatch(path.name) and (job is None or path.name.startswith(f"slurm-{job}-")):
                found.append((path.stat().st_mtime, path))
    return max(found)[1] if found else None


def last_lines(path: Path, number: int) -> list[str]:
    """Return the last lines of a log; none where it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - number * 1000))
        return file.read().decode(errors="backslashreplace").splitlines()[-number:]
    return []
