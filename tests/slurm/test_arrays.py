"""Arrays of runs on a real Slurm, and the job after them that writes their table."""

import csv
import json
from pathlib import Path

from slurm.cluster import RECIPE, TINY, Cluster, hashes, wait_until


class Array:
    def __init__(self, cluster: Cluster, folder: Path, *overrides: str) -> None:
        self.cluster, self.folder = cluster, folder
        where = f"output_dir={folder}/{{name}}-{{seed}}"
        printed = cluster.selfreward("submit", str(TINY), *RECIPE, where, "--seeds", "0-1", *overrides)
        lines = [line.split() for line in printed.splitlines()]
        self.id = lines[0][1].rstrip(",")
        assert [line[1] for line in lines if line[0] == "run"] == [f"{self.id}_0", f"{self.id}_1"]
        self.table_job = lines[-1][1].rstrip(",")
        self.runs = [folder / "tiny-0", folder / "tiny-1"]

    def wait_for(self, run: Path, pattern: str = "iteration-01/responses/00000.parquet") -> None:
        wait_until(lambda: any(run.glob(pattern)), f"{pattern} in {run}", log=run)

    def table(self) -> list[dict[str, str]]:
        """Return the rows of the table when nothing is queued any more."""
        wait_until(self.cluster.is_queue_empty, "an empty queue", log=self.runs[1])
        with (self.folder / "tiny-seeds" / "table.csv").open() as file:
            return list(csv.DictReader(file))

    def table_log(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "tiny-seeds" / "logs").glob("table-*.log"))


def test_short_a_requeued_task_keeps_its_id_and_the_table_waits_for_it(
    cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    array = Array(cluster, tmp_path)
    task = f"{array.id}_1"
    array.wait_for(array.runs[1])
    status = cluster.status(array.runs[1])
    assert (status["job"]["id"], status["job"]["state"]) == (task, "RUNNING")
    again = cluster.selfreward(
        "submit", str(TINY), *RECIPE, f"output_dir={tmp_path}/{{name}}-{{seed}}", "--seeds=1", code=5
    )
    assert f"job {task} of this run is RUNNING" in again
    cluster.run("scancel", "-s", "USR1", "-b", task)
    wait_until(lambda: cluster.job(task) == "PENDING", "the task to wait again", log=array.runs[1])
    assert cluster.status(array.runs[1])["state"] == "queued"
    wait_until(lambda: cluster.status(array.runs[0])["state"] == "finished", "the other run", log=array.runs[0])
    assert cluster.job(array.table_job) == "PENDING", "a requeued task has not ended"
    rows = array.table()
    assert [(row["seed"], row["state"], row["iterations"]) for row in rows] == [
        ("0", "finished", "1"), ("1", "finished", "1"),
    ]  # fmt: skip
    assert float(rows[0]["response_tokens_low"]) <= float(rows[0]["response_tokens"])
    assert hashes(array.runs[0]) == undisturbed
    assert {path.name for path in (array.runs[1] / "logs").glob("slurm-*")} == {
        f"slurm-{task}-0.log", f"slurm-{task}-1.log",
    }  # fmt: skip
    assert "── iteration 1 ──" in cluster.selfreward("logs", str(array.runs[1]))
    assert "| 1 | 1 |" in array.table_log()


def test_the_table_waits_for_continuations_which_are_other_jobs(
    cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    array = Array(cluster, tmp_path, "launch.slurm.extra=[--no-requeue]")
    array.wait_for(array.runs[0])
    cluster.run("scancel", "-s", "USR1", "-b", f"{array.id}_0")
    rows = array.table()
    assert [row["state"] for row in rows] == ["finished", "finished"]
    jobs = [json.loads(line) for line in (array.runs[0] / "slurm" / "jobs.jsonl").read_text().splitlines()]
    assert jobs[1]["continues"] == f"{array.id}_0"
    assert hashes(array.runs[0]) == undisturbed
    assert "tiny-0" not in (tmp_path / "tiny-seeds" / "table.md").read_text()


def test_the_table_names_a_run_that_was_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    array = Array(cluster, tmp_path)
    array.wait_for(array.runs[1])
    assert cluster.selfreward("cancel", str(array.runs[1])) == f"cancelled {array.id}_1\n"
    rows = array.table()
    assert rows[0]["state"] == "finished" and rows[1]["state"].endswith(f"job {array.id}_1 is CANCELLED")
    text = (tmp_path / "tiny-seeds" / "table.md").read_text()
    assert "1 of 2 runs have not finished" in text and str(array.runs[1]) in text
    where = f"output_dir={tmp_path}/{{name}}-{{seed}}"
    printed = cluster.selfreward("submit", str(TINY), *RECIPE, where, "--seeds", "0-1")
    assert "1 runs" in printed and "tiny-0" not in printed, "what has finished is not submitted again"
    assert [row["state"] for row in array.table()] == ["finished", "finished"]
