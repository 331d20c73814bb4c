"""A run with a time limit: it ends with 75 before a shard that would not fit, and does not requeue itself for ever."""

import json
import time
from pathlib import Path

import pytest
from cases.command_line import run, selfreward


def set_seconds(folder: Path, stage: str, seconds: float) -> None:
    """Let the shards of a stage have taken this long."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest["files"][f"iteration-01/{stage}.parquet"]
    entry["seconds"] = seconds * len(entry["shard_records"])
    path.write_text(json.dumps(manifest))


def test_a_shard_that_would_not_end_in_time_is_left_to_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert run(folder, "iterations.max=1").returncode == 0
    set_seconds(folder, "judgments", 7200)
    monkeypatch.setenv("SELFREWARD_END_TIME", str(time.time() + 3600))
    done = run(folder, "iterations.max=2")
    assert done.returncode == 75, done.stderr[-2000:]
    assert "judgments, shard 0: takes about 7,200 s" in done.stderr and "the same command resumes" in done.stderr
    assert (folder / "iteration-02/responses.parquet").exists() and not (folder / "iteration-02/judgments").exists()
    status = json.loads(selfreward("status", folder, "--json").stdout)
    assert (status["state"], status["exit_code"]) == ("preempted", 75)

    again = run(folder, "iterations.max=2")
    assert again.returncode == 4, again.stderr[-2000:]
    assert "are left at the start of this attempt, so no attempt of this length would end it" in again.stderr
    assert "raise launch.slurm.time" in again.stderr and "Traceback" not in again.stderr

    monkeypatch.setenv("SELFREWARD_END_TIME", str(time.time() + 8000))
    done = run(folder, "iterations.max=2")
    assert done.returncode == 0, done.stderr[-2000:]
    logs = [path.name for path in sorted((folder / "logs").iterdir())]
    assert logs == [f"local-0{number}.log" for number in (1, 2, 3, 4)]
    assert "no attempt of this length" in (folder / "logs" / "local-03.log").read_text()
    assert "iteration 2" in selfreward("logs", folder).stdout
