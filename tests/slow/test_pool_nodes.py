"""Replicas on a Ray cluster of two nodes, one of which is killed in the middle of a call."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases.replicas import Doubling, Nodes, two_nodes

from selfreward.engines.pool.replicas import Replicas
from selfreward.engines.pool.size import Share
from selfreward.errors import EngineError
from selfreward.ray_cluster import Cluster, ray

pytest.importorskip("ray")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]))
        with two_nodes(tmp_path_factory.mktemp("nodes")) as found:
            yield found


def test_a_killed_node_loses_nothing_and_too_few_nodes_end_the_run(nodes: Nodes) -> None:
    share = Share(num_gpus=0, num_cpus=1)
    cluster = Cluster(nodes.address, num_cpus=0, num_gpus=0, num_nodes=2)
    assert cluster.capacity(share.times_in) == 2 and not cluster.has_gpus()
    actor = ray().remote(Doubling).options(num_cpus=1, scheduling_strategy="SPREAD")
    replicas = Replicas(actor.remote, capacity=lambda: cluster.capacity(share.times_in), wanted=2, minimum=1)
    replicas.load("the checkpoint", kept={})  # type: ignore[arg-type]
    killed = False

    def kill(_: int) -> None:
        nonlocal killed
        if not killed:
            os.kill(nodes.raylets[1], signal.SIGKILL)
        killed = True

    end = time.monotonic() + 60
    while not replicas.lost and time.monotonic() < end:  # an actor notices the end of its node after some seconds
        found: list[Any] = replicas.map("double", [[i] for i in range(400)], several=False, on_done=kill)
        assert [number for ((number, _),) in found] == list(range(0, 800, 2)), "nothing lost, nothing twice"
    assert len(replicas.lost) == 1
    replicas.close()
    demanding = Replicas(actor.remote, capacity=lambda: cluster.capacity(share.times_in), wanted=2, minimum=2)
    with pytest.raises(EngineError, match=r"1 replicas can run; at least engine.min_replicas, which is 2, are needed"):
        demanding.load("the checkpoint", kept={})  # type: ignore[arg-type]
    cluster.close()


def test_nodes_that_do_not_come_are_counted(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selfreward.ray_cluster.NODES_S", 0.5)
    with pytest.raises(EngineError, match=r"launch\.ray\.nodes: the cluster has [12] nodes.*; 3 are needed"):
        Cluster(nodes.address, num_cpus=0, num_gpus=0, num_nodes=3)
    assert not ray().is_initialized()


def test_an_address_without_a_cluster_is_named() -> None:
    with pytest.raises(EngineError, match=r"launch.ray.address: 127.0.0.1:9: no connection to this Ray cluster"):
        Cluster("127.0.0.1:9", num_cpus=0, num_gpus=0)
