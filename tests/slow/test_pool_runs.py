"""Whole runs with several engines: the same files as with one, also when actors, nodes or the driver are killed."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cases.replicas import descendants, is_alive, two_nodes, wait_until

pytest.importorskip("ray")

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"


def files_of(run: Path) -> dict[str, str]:
    paths = sorted((*run.rglob("*.parquet"), *run.rglob("*.safetensors")))
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def started(folder: Path, *changes: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "selfreward", "run", str(TINY), "--set", f"output_dir={folder}"]
    for change in changes:
        command += ["--set", change]
    folder.parent.mkdir(exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True)


def log_of(folder: Path) -> str:
    return (folder.parent / f"{folder.name}.log").read_text()


def wait_for(text: str, folder: Path, process: subprocess.Popen[str]) -> None:
    assert wait_until(lambda: text in log_of(folder) or process.poll() is not None, seconds=240)
    assert process.poll() is None, log_of(folder)


@pytest.fixture(scope="module")
def one_engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("runs") / "one"
    assert started(folder).wait() == 0, log_of(folder)
    return files_of(folder)


def test_a_run_with_two_replicas_has_the_files_of_one_with_one(one_engine: dict[str, str], tmp_path: Path) -> None:
    run = tmp_path / "two"
    process = started(run, "engine.replicas=2")
    wait_for("iteration 1", run, process)
    (replica, _) = [child for child in descendants(process.pid) if child.name().startswith("ray::Replica")]
    replica.kill()
    assert process.wait() == 0, log_of(run)
    assert len(one_engine) > 40 and files_of(run) == one_engine
    facts = json.loads((run / "manifest.json").read_text())["facts"]["engine"]
    assert facts["replicas"]["num"] == 2 and str(replica.pid) in facts["replicas"]["lost"][0]
    assert "was lost; its part is computed again" in (run / "run.log").read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 75)])
def test_nothing_is_left_of_a_stopped_driver_and_the_run_resumes(
    one_engine: dict[str, str], tmp_path: Path, number: int, code: int
) -> None:
    run = tmp_path / "stopped"
    process = started(run, "engine.replicas=2")
    wait_for("iteration 1", run, process)
    processes = descendants(process.pid)
    names = [child.name() for child in processes]
    assert sum(name.startswith("ray::Replica") for name in names) == 2 and {"raylet", "gcs_server"} <= set(names)
    process.send_signal(number)
    assert process.wait() == code
    left = [child for child, name in zip(processes, names, strict=True) if not name.endswith("Agent")]
    assert wait_until(lambda: not any(map(is_alive, left)), seconds=20), left
    # Ray's two agents, which hold neither memory of a device nor work, notice it later.
    assert wait_until(lambda: not any(map(is_alive, processes)), seconds=120)
    assert started(run, "engine.replicas=1").wait() == 0, "the number of replicas may change on resume"
    assert files_of(run) == one_engine


@pytest.mark.parametrize("min_replicas", [1, 2])
def test_a_run_continues_without_a_lost_node_or_ends_resumable(
    one_engine: dict[str, str], tmp_path: Path, min_replicas: int
) -> None:
    run = tmp_path / "nodes"
    with two_nodes(tmp_path) as nodes:
        changes = [f"launch.ray.address={nodes.address}", "engine.replicas=2"]
        process = started(run, *changes, f"engine.min_replicas={min_replicas}")
        wait_for("iteration 1", run, process)
        os.kill(nodes.raylets[1], signal.SIGKILL)
        code = process.wait()
        if min_replicas == 2:
            assert code == 4
            assert re.search(r"engine.replicas: 1 replicas can run after replica \d on .* were lost", log_of(run))
            assert started(run, *changes).wait() == 0, "with the one node that is left"
        else:
            assert code == 0
        assert files_of(run) == one_engine
