"""What Slurm's commands print, as recorded from Slurm 22.05, and how it is read."""

from pathlib import Path

import pytest

from selfreward.errors import LaunchError
from selfreward.launch.slurm import queue
from selfreward.launch.slurm.queue import Job, read_sacct, read_squeue

# squeue --noheader --states=all --jobs=ID --format=%i|%T|%L|%r
SQUEUE = {
    "12|RUNNING|19:46|None\n": Job("12", "RUNNING", "", 1186),
    "12|RUNNING|1-02:00:00|None\n": Job("12", "RUNNING", "", 93600),
    "12|RUNNING|UNLIMITED|None\n": Job("12", "RUNNING"),
    "12|PENDING|20:00|BeginTime\n": Job("12", "PENDING", "BeginTime"),
    "12|PENDING|10:00|ReqNodeNotAvail, UnavailableNodes:n1\n": Job(
        "12", "PENDING", "ReqNodeNotAvail, UnavailableNodes:n1"
    ),
    "12|COMPLETED|10:00|None\n": Job("12", "COMPLETED"),
    "12|CANCELLED|9:57|None\n": Job("12", "CANCELLED"),
    "12|FAILED|10:00|NonZeroExitCode\n": Job("12", "FAILED", "NonZeroExitCode"),
}
# sacct --noheader --allocations --parsable2 --jobs=ID --format=JobID,State,ExitCode
SACCT = {
    "12|COMPLETED|0:0\n": Job("12", "COMPLETED", "exit code 0:0"),
    "12|FAILED|3:0\n": Job("12", "FAILED", "exit code 3:0"),
    "12|CANCELLED by 0|0:0\n": Job("12", "CANCELLED", "exit code 0:0"),
    "12|REQUEUED|0:0\n12|CANCELLED by 0|0:0\n": Job("12", "CANCELLED", "exit code 0:0"),
}


@pytest.mark.parametrize("text", SQUEUE)
def test_squeue_is_read(text: str) -> None:
    job = read_squeue(text)
    assert job == SQUEUE[text]
    assert job.is_active == (job.state in ("RUNNING", "PENDING"))


@pytest.mark.parametrize("text", SACCT)
def test_sacct_is_read(text: str) -> None:
    job = read_sacct(text)
    assert job == SACCT[text] and not job.is_active


@pytest.mark.parametrize("text", ["", "\n", "slurm_load_jobs error: Invalid job id specified\n"])
def test_nothing_is_read_where_there_is_no_job(text: str) -> None:
    assert read_squeue(text) is None and read_sacct(text) is None


def test_a_machine_without_slurm_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"sbatch: .*login node"):
        queue.submitted(tmp_path / "job.sh", working_folder=tmp_path)
    assert queue.end_time("12") is None
