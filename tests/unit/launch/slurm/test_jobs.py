"""The jobs of a run folder, also where Slurm cannot be asked."""

from pathlib import Path

import pytest

from selfreward.commands.logs import log_of
from selfreward.errors import LaunchError, NoRunError
from selfreward.launch.slurm.jobs import cancel_jobs, job_ids, job_status, record_job
from selfreward.launch.slurm.limit import end_of_time
from selfreward.launch.status import rendered, status_of
from selfreward.store import Store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder on a machine without Slurm."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with Store(tmp_path / "run") as store:
        store.write_text("slurm/job.sh", "")
    return tmp_path / "run"


def test_jobs_are_in_the_order_in_which_they_were_submitted(run: Path) -> None:
    assert job_ids(run) == []
    record_job(run, "9")
    with (run / "slurm/jobs.jsonl").open("a") as file:
        file.write('{"id": "12", "continues": "9"}\n[1]\n{"id": ')  # the last one was killed while it wrote
    assert job_ids(run) == ["9", "12"]


def test_a_run_without_jobs_asks_nobody(run: Path) -> None:
    assert status_of(run)["job"] is None and "job " not in rendered(status_of(run))
    assert cancel_jobs(run) == []


def test_without_slurm_the_run_folder_is_what_is_known(run: Path) -> None:
    record_job(run, "12")
    (run / "logs").mkdir()
    (run / "logs" / "slurm-12-0.log").write_text("working\n")
    status = status_of(run)
    assert status["state"] == "interrupted"
    assert (status["job"]["id"], status["job"]["state"], status["job"]["lost"]) == ("12", "UNKNOWN", None)
    assert "squeue: " in status["job"]["reason"] and str(run / "logs" / "slurm-12-0.log") in rendered(status)
    with pytest.raises(LaunchError, match="squeue: "):
        cancel_jobs(run)
    assert log_of(run) == "working\n"


def test_a_run_without_a_log_says_what_it_waits_for(run: Path) -> None:
    with pytest.raises(NoRunError, match="no log yet, as the run has not begun"):
        log_of(run)
    record_job(run, "12")
    with pytest.raises(NoRunError, match="no log yet, as job 12 is UNKNOWN"):
        log_of(run)
    with pytest.raises(NoRunError, match="a run folder is needed"):
        log_of(run / "slurm")


def test_a_job_that_has_ended_with_its_run_is_not_lost(run: Path) -> None:
    record_job(run, "12")
    status = job_status(run, {"state": "finished"})
    assert status is not None and status.lost is None


def test_the_end_of_the_time(run: Path) -> None:
    assert end_of_time({}) is None
    assert end_of_time({"SELFREWARD_END_TIME": "5000", "SLURM_JOB_END_TIME": "9000"}) == 5000
    assert end_of_time({"SLURM_JOB_END_TIME": "9000", "SLURM_JOB_ID": "12"}) == 9000 - 120
    assert end_of_time({"SLURM_JOB_ID": "12"}) is None, "nobody answers"
