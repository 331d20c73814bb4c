"""`selfreward table` as a job after a group of runs: it waits again for those that go on as other jobs."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from selfreward.errors import LaunchError
from selfreward.launch.group import Member
from selfreward.launch.slurm import queue
from selfreward.launch.slurm.array import group_places
from selfreward.launch.slurm.jobs import active_jobs


def table_resubmitted(folder: Path, members: Sequence[Member]) -> str:
    """Submit the table's job again, after the jobs that still work on runs; return its id, "" without any."""
    active: list[str] = []
    with suppress(LaunchError):  # no Slurm here, as in some containers: the table names what has not finished
        active = [job.id for member in members for job in active_jobs(member.folder)]
    if not active:
        return ""
    return queue.submitted(group_places(folder).table, working_folder=Path.cwd(), after=active)
