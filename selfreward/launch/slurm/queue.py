"""Slurm's commands: submitting, asking for, and cancelling jobs."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from selfreward.errors import LaunchError
from selfreward.recipe import seconds_of

_ENDED: Final = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
_TIMEOUT_S: Final = 60


class Job(NamedTuple):
    """What Slurm says about a job. `state` is one of its own words; `reason` why it waits, or its exit code."""

    id: str
    state: str
    reason: str = ""
    seconds_left: int | None = None

    @property
    def is_active(self) -> bool:
        return self.state not in _ENDED


def submitted(script: Path, *, working_folder: Path, after: Sequence[str] = ()) -> str:
    """Submit a script; return the id of its job, which waits for the end of other jobs, however they end.

    Raises LaunchError with Slurm's own words.
    """
    # A dependency that can no more be satisfied must not leave the job in the queue for ever.
    waits = [f"--dependency=afterany:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    done = _run(["sbatch", "--parsable", *waits, str(script)], working_folder=working_folder)
    if done.returncode:
        raise LaunchError(
            f"{script}: sbatch refused it ({_line(done.stderr)}); the keys of launch.slurm must suit this cluster; "
            "correct them (`sinfo` lists partitions), then submit the recipe again"
        )
    return done.stdout.strip().split(";")[0]


def job_of(job_id: str) -> Job | None:
    """Return what squeue says about a job, else what sacct says; None when neither knows it any more.

    Raises LaunchError where Slurm's commands are missing or its controller does not answer.
    """
    done = _run(["squeue", "--noheader", "--array", "--states=all", f"--jobs={job_id}", "--format=%i|%T|%L|%r"])
    if found := read_squeue(done.stdout):
        return found
    if done.returncode and "Invalid job id" not in done.stderr:
        raise LaunchError(f"squeue: {_line(done.stderr)}; Slurm's controller must answer; try again when it does")
    done = _run(
        ["sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job_id}", "--format=JobID,State,ExitCode"]
    )
    return read_sacct(done.stdout)  # empty on a cluster without accounting


def read_squeue(text: str) -> Job | None:
    """Return the job of a line `id|state|time left|reason`."""
    for line in text.splitlines():
        if len(parts := line.strip().split("|", 3)) == 4:
            left = seconds_of(parts[2]) if parts[1] == "RUNNING" else None
            return Job(parts[0], parts[1], "" if parts[3] == "None" else parts[3], left)
    return None


def read_sacct(text: str) -> Job | None:
    """Return the job of the last line `id|state|exit code`; after a requeue there is one for each attempt."""
    found = None
    for line in text.splitlines():
        if len(parts := line.strip().split("|")) == 3:
            found = Job(parts[0], parts[1].split(" ")[0], f"exit code {parts[2]}")  # "CANCELLED by 1000"
    return found


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; one that has ended already is no error. Raises LaunchError."""
    done = _run(["scancel", *job_ids])
    if done.returncode and "Invalid job id" not in done.stderr:
        raise LaunchError(f"scancel {shlex.join(job_ids)}: {_line(done.stderr)}; only a job's owner may cancel it")


def end_time(job_id: str) -> float | None:
    """Return when the time of a running job ends, in seconds since 1970; None without a limit, or without an answer."""
    try:
        done = _run(["squeue", "--noheader", f"--jobs={job_id}", "--format=%e"])
        return time.mktime(time.strptime(done.stdout.strip(), "%Y-%m-%dT%H:%M:%S"))
    except (LaunchError, ValueError):  # "N/A"
        return None


def _run(command: Sequence[str], working_folder: Path | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command without the variables of a job in which this process may be: sbatch would pass them on."""
    environment = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name[:6] != "SLURM_"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="backslashreplace", check=False, cwd=working_folder,
            env=environment, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise LaunchError(
            f"{command[0]}: {error.strerror}; Slurm's commands must be installed here; give the command on a node of "
            "the cluster, such as its login node"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise LaunchError(
            f"{command[0]}: no answer within {_TIMEOUT_S} s; Slurm's controller must answer; try again when it does"
        ) from error


def _line(text: str) -> str:
    """Return the sentence of an error of Slurm's commands in one line."""
    lines = [re.sub(r"^\w+: (error: )?", "", line.strip()) for line in text.splitlines() if line.strip()]
    return "; ".join(lines)[:500] or "without a reason"
