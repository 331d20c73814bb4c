"""`selfreward logs`: the log of the newest attempt, and with --follow those of the attempts that come after it."""

import time
from collections.abc import Iterator
from pathlib import Path

from selfreward.errors import LaunchError, NoRunError
from selfreward.launch.attempts import newest_log
from selfreward.launch.slurm.jobs import active_jobs, job_status
from selfreward.launch.status import stored_status
from selfreward.store.lock import is_held
from selfreward.store.names import MANIFEST

_POLL_S = 0.5
_ASK_S = 15.0  # between questions to Slurm


def log_of(folder: Path) -> str:
    """Return the log of the newest attempt. Raises NoRunError where there is none yet."""
    _require_run(folder)
    path = newest_log(folder)
    if path is None:
        job = job_status(folder, stored_status(folder))
        waits = f"job {job.id} is {job.state} ({job.reason})" if job else "the run has not begun"
        raise NoRunError(f"{folder}: no log yet, as {waits}; an attempt writes one; wait, or add --follow")
    return path.read_text(encoding="utf-8", errors="backslashreplace")


def followed(folder: Path) -> Iterator[str]:
    """Yield the log of the newest attempt as it grows, then those of later ones, until nothing works on the run."""
    _require_run(folder)
    path, position, asked, is_worked_on = newest_log(folder), 0, 0.0, True
    while True:
        if time.monotonic() - asked > _ASK_S or not asked:
            is_worked_on, asked = _is_worked_on(folder), time.monotonic()
        if path is not None:
            text, position = _read_from(path, position)
            yield text
        newer = newest_log(folder)
        if newer is not None and newer != path:
            if path is not None:
                yield _read_from(path, position)[0]
            path, position = newer, 0
        elif not is_worked_on:
            return
        else:
            time.sleep(_POLL_S)


def _read_from(path: Path, position: int) -> tuple[str, int]:
    with path.open("rb") as file:
        file.seek(position)
        found = file.read()
    return found.decode(errors="backslashreplace"), position + len(found)


def _is_worked_on(folder: Path) -> bool:
    try:
        return is_held(folder) or bool(active_jobs(folder))
    except LaunchError:  # no Slurm here, or one that does not answer: the log may still grow
        return True


def _require_run(folder: Path) -> None:
    if not (folder / MANIFEST).is_file():
        raise NoRunError(f"{folder}: no {MANIFEST}; a run folder is needed; check the path")
