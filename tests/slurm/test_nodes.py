"""A run on two nodes of a real Slurm, with an engine on each by the Ray that the batch script starts."""

import json
from pathlib import Path

import pytest
from slurm.cluster import Cluster, hashes, wait_until

pytest.importorskip("ray")


def test_two_nodes_make_the_stage_files_of_one_process(
    cluster: Cluster, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "a run"
    # An engine takes the one CPU that each node offers: two of them are on two nodes.
    cluster.submit(run, "launch.slurm.nodes=2", "launch.slurm.cpus=1", "engine.replicas=2", "engine.min_replicas=2")
    status = run / "status.json"
    wait_until(
        lambda: status.exists() and json.loads(status.read_text())["state"] in ("finished", "failed"),
        "its end",
        log=run,
    )
    wait_until(cluster.is_queue_empty, "an empty queue", log=run)
    logs = "\n".join(path.read_text() for path in run.glob("logs/*"))
    assert json.loads(status.read_text())["state"] == "finished", logs
    assert hashes(run) == undisturbed
    replicas = json.loads((run / "manifest.json").read_text())["facts"]["engine"]["replicas"]
    assert replicas["num"] == 2 and replicas["lost"] == []
    assert "Ray runtime started" in logs
    ray = logs[logs.index("Ray runtime started") :]
    assert logs.count("Local node IP") == 2 and "ended with exit code 0" in ray
