"""The jobs of a run: their ids in the run folder, their state, and what is known about one that was lost."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from selfreward.errors import LaunchError
from selfreward.launch.attempts import last_lines, newest_log
from selfreward.launch.slurm import queue
from selfreward.launch.slurm.places import places_in
from selfreward.launch.slurm.queue import Job
from selfreward.store.files import explain_os_errors

_NUM_LINES: Final = 40
UNKNOWN: Final = "UNKNOWN"


class JobStatus(NamedTuple):
    """The job that works on a run, or did last. `lost` is the message about one that ended before its run did."""

    id: str
    state: str
    reason: str
    seconds_left: int | None
    is_active: bool
    log: str | None
    lost: str | None

    def as_json(self) -> dict[str, Any]:
        return self._asdict()


def job_ids(run_folder: Path) -> list[str]:
    """Return the ids of all jobs of a run, the oldest first; a line that was not written to its end is skipped."""
    return list(_outputs(run_folder))


def _outputs(run_folder: Path) -> dict[str, str | None]:
    """Return the recorded `output` of each job."""
    found: dict[str, str | None] = {}
    with suppress(OSError):
        for line in places_in(run_folder).jobs.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                entry = json.loads(line)
                found.setdefault(str(entry["id"]), entry.get("output"))
    return found


def record_job(run_folder: Path, job_id: str, *, output: Path | None = None) -> None:
    """Record a job; `output` is the file of what Slurm itself says about it, where that is not in the run folder."""
    jobs = places_in(run_folder).jobs
    entry = {"id": job_id} | ({"output": str(output)} if output else {})
    with explain_os_errors(jobs), jobs.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def active_jobs(run_folder: Path) -> list[Job]:
    """Return the jobs that are queued or running. Raises LaunchError where Slurm does not answer."""
    # Only the last two can be: a job, and the one that continues it.
    found = (queue.job_of(job_id) for job_id in job_ids(run_folder)[-2:])
    return [job for job in found if job is not None and job.is_active]


def cancel_jobs(run_folder: Path) -> list[str]:
    """Cancel every job of a run, those first that would continue another one; return their ids."""
    cancelled: list[str] = []
    while jobs := [job.id for job in active_jobs(run_folder) if job.id not in cancelled]:
        queue.cancel(jobs[::-1])
        cancelled += jobs
    return cancelled


def job_status(run_folder: Path, run: Mapping[str, Any]) -> JobStatus | None:
    """Return the status of a run's job, or None for a run without one; `run` is the status of the run itself.

    The state is squeue's, else sacct's; where Slurm does not know the job any more it is UNKNOWN, and what the run
    itself wrote is all that there is.
    """
    ids = job_ids(run_folder)
    if not ids:
        return None
    job, answered = Job(ids[-1], UNKNOWN), True
    try:
        job = _current(run_folder) or queue.job_of(ids[-1]) or job
    except LaunchError as error:
        job, answered = Job(ids[-1], UNKNOWN, str(error)), False
    is_active = job.is_active and job.state != UNKNOWN
    log = newest_log(run_folder, job.id) or _own_log(run_folder, job.id)
    is_lost = answered and not is_active and run.get("state") not in ("finished", "running")
    return JobStatus(
        job.id, job.state, job.reason, job.seconds_left, is_active, str(log) if log else None,
        _lost(run_folder, job, run, log) if is_lost else None,
    )  # fmt: skip


def _current(run_folder: Path) -> Job | None:
    """Return the job that runs, else the one that waits."""
    active = active_jobs(run_folder)
    return next((job for job in active if job.state != "PENDING"), active[-1] if active else None)


def _own_log(run_folder: Path, job_id: str) -> Path | None:
    """Return the file of what Slurm itself said about a job, if it said anything."""
    recorded = _outputs(run_folder).get(job_id)
    path = Path(recorded) if recorded else places_in(run_folder).logs / f"slurm-{job_id}.log"
    return path if path.is_file() and path.stat().st_size else None


def _lost(run_folder: Path, job: Job, run: Mapping[str, Any], log: Path | None) -> str:
    """Return where, what and what to do about a job that ended before its run did, with the end of its log."""
    code = "" if run.get("exit_code") is None else f", exit code {run['exit_code']}"
    known = f"{job.state}{f', {job.reason}' if job.reason else ''}"
    lines = last_lines(log, _NUM_LINES) if log else []
    if (own := _own_log(run_folder, job.id)) and own != log:
        lines = [*lines, *last_lines(own, _NUM_LINES)][-_NUM_LINES:]
    tail = "".join(f"\n    {line}" for line in lines) or " empty"
    return (
        f"job {job.id}: {known}, but the run has not ended (its state is {run.get('state')}{code}); finished work is "
        "stored; see to what the log says, then give the command `selfreward submit` again; "
        f"the end of its log, {log or 'which does not exist'}:{tail}"
    )
