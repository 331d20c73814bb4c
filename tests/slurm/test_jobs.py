"""Runs as jobs of a real Slurm. Whatever happens to a job, the run ends with the stage files of an undisturbed one.

The tests with `short` in their names are the ones that `.ci/run` has.
"""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from slurm.cluster import RECIPE, TINY, Cluster, hashes, wait_until

WHOLE_NODE = "launch.slurm.extra=[--exclusive]"
GENERATING, TRAINING = "iteration-01/responses/00000.parquet", "iteration-01/.training/**/complete.json"


def wait_for_file(run: Path, pattern: str) -> None:
    wait_until(lambda: any(run.glob(pattern)), f"{pattern} in {run}", log=run)
    stage = "responses.parquet" if pattern == GENERATING else "checkpoint"
    assert not (run / "iteration-01" / stage).exists(), "seen too late to disturb anything"


def wait_for_end(cluster: Cluster, run: Path) -> None:
    """Wait until the run has finished, and nothing more of it is queued."""

    wait_until(lambda: state_of(run) == "finished", "the run to finish", log=run)
    wait_until(cluster.is_queue_empty, "an empty queue", log=run)
    assert not (run / "iteration-01" / ".training").exists()


def state_of(run: Path) -> str | None:
    """Return the state that the program wrote last."""
    path = run / "status.json"
    return json.loads(path.read_text())["state"] if path.exists() else None


def logs(run: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted((run / "logs").glob("slurm-*-*.log"))}


def test_short_submit_status_and_logs(cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "a run; $(touch owned) 'q\" %j"
    job = cluster.submit(run, "launch.slurm.time=20", "launch.slurm.cpus=2", "launch.slurm.gpus=1")
    followed: list[str] = []
    follower = threading.Thread(target=lambda: followed.append(cluster.selfreward("logs", str(run), "--follow")))
    follower.start()
    again = cluster.selfreward("submit", str(TINY), *RECIPE, f"output_dir={run}", code=5)
    assert f"job {job} of this run is " in again
    wait_until(lambda: state_of(run) == "running", "the program to start", log=run)
    status = cluster.status(run)
    assert (status["state"], status["job"]["id"], status["job"]["state"]) == ("running", job, "RUNNING")
    assert 1000 < status["job"]["seconds_left"] <= 1200 and status["job"]["lost"] is None
    end = time.mktime(time.strptime(cluster.job(job, "%e"), "%Y-%m-%dT%H:%M:%S"))
    program = Path(f"/proc/{status['pid']}/environ").read_text().split("\0")
    assert f"SELFREWARD_END_TIME={end - 120:.0f}" in program
    assert "CUDA_VISIBLE_DEVICES=0" in program
    wait_for_end(cluster, run)
    assert hashes(run) == undisturbed
    assert logs(run).keys() == {f"slurm-{job}-0.log"}, "the log of the batch job is that of the attempt"
    assert not [*(run / "logs").glob("local-*")]
    log = logs(run)[f"slurm-{job}-0.log"]
    assert "── iteration 1 ──" in log and log.endswith("ended with exit code 0\n")
    assert cluster.selfreward("logs", str(run)) == log
    follower.join(60)
    assert followed == [log]
    status = cluster.status(run)
    assert (status["state"], status["job"]["state"], status["job"]["lost"]) == ("finished", "COMPLETED", None)
    assert "already finished" in cluster.selfreward("submit", str(TINY), *RECIPE, f"output_dir={run}")
    assert not [*Path.cwd().glob("owned"), *run.glob("**/owned"), *tmp_path.glob("owned")]


def test_short_usr1_in_generation_requeues(cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run)
    wait_for_file(run, GENERATING)
    first = (run / GENERATING).stat().st_ino
    cluster.run("scancel", "-s", "USR1", "-b", job)
    wait_until(lambda: cluster.job(job) == "PENDING", "the job to wait again", log=run)
    status = cluster.status(run)
    assert (status["state"], status["job"]["id"], status["job"]["reason"]) == ("queued", job, "BeginTime")
    if (run / GENERATING).exists():
        assert (run / GENERATING).stat().st_ino == first, "a finished shard was made again"
    wait_for_end(cluster, run)
    assert hashes(run) == undisturbed
    found = logs(run)
    assert found.keys() == {f"slurm-{job}-0.log", f"slurm-{job}-1.log"}
    assert "stopped by SIGUSR1" in found[f"slurm-{job}-0.log"] and "requeued" in found[f"slurm-{job}-0.log"]
    assert cluster.selfreward("logs", str(run)) == found[f"slurm-{job}-1.log"]


@pytest.mark.parametrize("trigger", [GENERATING, TRAINING], ids=["generation", "training"])
def test_preempted_by_a_higher_partition(
    cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path, trigger: str
) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run, WHOLE_NODE, "launch.slurm.partition=low")
    wait_for_file(run, trigger)
    cluster.occupy(cluster.job(job, "%N"))
    wait_for_end(cluster, run)
    assert hashes(run) == undisturbed
    assert logs(run).keys() == {f"slurm-{job}-0.log", f"slurm-{job}-1.log"}
    assert "exit code 75" in logs(run)[f"slurm-{job}-0.log"]


@pytest.mark.parametrize("extra", ["[--exclusive, --no-requeue]", "[--exclusive]"])
def test_preempted_where_preemption_cancels(
    cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path, extra: str
) -> None:
    """A job that may be requeued requeues itself in time; of one that may not, another one is the continuation."""
    run = tmp_path / "run"
    job = cluster.submit(run, f"launch.slurm.extra={extra}", "launch.slurm.partition=fleeting")
    wait_for_file(run, GENERATING)
    cluster.occupy(cluster.job(job, "%N"))
    wait_for_end(cluster, run)
    assert hashes(run) == undisturbed
    lines = [json.loads(line) for line in (run / "slurm" / "jobs.jsonl").read_text().splitlines()]
    if "--no-requeue" in extra:
        assert len(lines) == 2 and lines[1]["continues"] == lines[0]["id"] == job, "one continuation, never two"
        assert logs(run).keys() == {f"slurm-{job}-0.log", f"slurm-{lines[1]['id']}-0.log"}
        assert cluster.status(run)["job"]["id"] == lines[1]["id"]
    else:
        assert len(lines) == 1 and logs(run).keys() == {f"slurm-{job}-0.log", f"slurm-{job}-1.log"}


def test_the_restart_budget_ends_requeues(cluster: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run, "launch.slurm.max_restarts=1", "launch.slurm.extra=[--no-requeue]")
    for count in range(2):
        wait_until(lambda count=count: len(logs(run)) == count + 1, "an attempt", log=run)
        newest = cluster.status(run)["job"]["id"]
        wait_until(lambda: state_of(run) == "running", "the program to start", log=run)
        cluster.run("scancel", "-s", "USR1", "-b", newest)
        wait_until(lambda newest=newest: cluster.job(newest) == "FAILED", "the attempt to end", log=run)
    wait_until(cluster.is_queue_empty, "an empty queue")
    assert "all 1 restarts are used" in [*logs(run).values()][-1]
    assert newest != job and f"job {newest}: FAILED" in cluster.status(run)["job"]["lost"]


def test_a_node_that_is_taken_down(cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run)
    wait_for_file(run, GENERATING)
    node = cluster.job(job, "%N")
    try:
        cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        wait_for_end(cluster, run)
    finally:
        # It may have come back already, since its daemon still answers.
        cluster.run("bash", "-c", f"scontrol update nodename={node} state=resume || true")
    assert hashes(run) == undisturbed
    assert logs(run).keys() == {f"slurm-{job}-0.log", f"slurm-{job}-1.log"}
    assert "Restarts=1 " in cluster.run("scontrol", "show", "job", "-o", job)


def test_the_controller_is_restarted(cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run)
    wait_for_file(run, GENERATING)
    cluster.restart_controller()
    assert cluster.status(run)["job"]["state"] == "RUNNING"
    wait_for_end(cluster, run)
    assert hashes(run) == undisturbed and logs(run).keys() == {f"slurm-{job}-0.log"}


@pytest.mark.parametrize("by", ["selfreward", "scancel", "after preemption"])
def test_a_cancelled_job_does_not_come_back(cluster: Cluster, tmp_path: Path, by: str) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run, WHOLE_NODE, "launch.slurm.partition=fleeting")
    wait_for_file(run, GENERATING)
    if by == "after preemption":
        cluster.occupy(cluster.job(job, "%N"))
        wait_until(lambda: len(logs(run)) == 2, "the second attempt", log=run)
        wait_until(lambda: state_of(run) == "running", "the program to start", log=run)
    if by == "selfreward":
        assert cluster.selfreward("cancel", str(run)) == f"cancelled {job}\n"
    else:
        cluster.run("scancel", job)
    wait_until(cluster.is_queue_empty, "an empty queue", log=run)
    status = cluster.status(run)
    assert status["job"]["state"] == "CANCELLED"
    assert status["state"] in ("preempted", "interrupted")  # the latter when it ended before it wrote its state
    assert "no job is queued or running" in cluster.selfreward("cancel", str(run))
    assert "exit code 75" in [*logs(run).values()][-1]
    assert len((run / "slurm" / "jobs.jsonl").read_text().splitlines()) == 1


def test_a_lost_job_is_explained(cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = cluster.submit(run)
    wait_for_file(run, GENERATING)
    os.kill(cluster.status(run)["pid"], signal.SIGKILL)
    wait_until(lambda: cluster.job(job) == "FAILED", "the job to end", log=run)
    status = cluster.status(run)
    assert status["state"] == "interrupted"
    lost = status["job"]["lost"]
    assert lost.startswith(f"job {job}: FAILED") and str(run / "logs" / f"slurm-{job}-0.log") in lost
    assert "ended with exit code 137" in lost and "── iteration 1 ──" in lost
    assert len(lost.splitlines()) <= 41
    assert lost.splitlines()[0] in cluster.selfreward("status", str(run))
    cluster.submit(run)
    wait_for_end(cluster, run)
    assert hashes(run) == undisturbed


def test_what_slurm_refuses_is_refused_with_its_reason(cluster: Cluster, tmp_path: Path) -> None:
    found = cluster.selfreward(
        "submit", str(TINY), f"output_dir={tmp_path / 'run'}", "launch.slurm.partition=no such; $(x)", code=4
    )
    assert "sbatch refused it" in found and "invalid partition" in found.lower()
    cluster.selfreward("submit", str(TINY), f"output_dir={tmp_path / 'other'}", "engine.context_tokens=64", code=2)
    assert not (tmp_path / "other").exists() and cluster.is_queue_empty()
