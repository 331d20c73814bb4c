"""Training on a Ray cluster of two nodes on this machine: two torchrun launchers, gloo, replicated models."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from cases.ranks import TOLERANCE, assert_same_update, curve, settings_of
from cases.replicas import Nodes, two_nodes
from cases.training import SECTION, make_job, make_pairs, train
from transformers import AutoModelForCausalLM

from selfreward.errors import TrainingError
from selfreward.recipe import LaunchSection
from selfreward.recipe.ray import RaySection
from selfreward.updates.launcher import train_in_children
from selfreward.updates.settings import Settings

pytest.importorskip("ray")
pytestmark = pytest.mark.usefixtures("one_thread")
LONG = SECTION.model_copy(update={"micro_batch_size": 1, "save_every_steps": 2, "num_epochs": 4})  # 12 steps


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
        with two_nodes(tmp_path_factory.mktemp("nodes")) as found:
            yield found


def on(cluster: Nodes, **launch: Any) -> Settings:
    return settings_of(LONG, launch=LaunchSection(ray=RaySection(address=cluster.address), **launch))


def ranks_of(raylet: int) -> list[psutil.Process]:
    """The ranks on a node, which Ray's processes there have started."""
    return [child for child in psutil.Process(raylet).children(recursive=True) if "RANK" in child.environ()]


def test_the_loss_curve_is_that_of_one_process_also_after_a_killed_rank(tmp_path: Path, nodes: Nodes) -> None:
    job = make_job(tmp_path, make_pairs(11))
    alone = replace(job, work_folder=tmp_path / "alone")
    train(alone, LONG)
    steps: list[int] = []
    found: list[list[psutil.Process]] = []

    def kill(phase: str, done: int, *_: Any) -> None:
        if (phase, done) == ("update", 5):
            found[:] = [ranks_of(raylet) for raylet in nodes.raylets]
            found[1][0].kill()

    settings = on(nodes, nodes=2, processes_per_node=1)
    with pytest.raises(TrainingError, match=r"training: rank \d on .* was killed by SIGKILL; it must end with"):
        train_in_children(job, settings, report=kill)
    assert [len(ranks) for ranks in found] == [1, 1], "a rank on each node"
    gone, alive = psutil.wait_procs([rank for ranks in found for rank in ranks], timeout=20)
    assert len(gone) == 2 and not alive
    logs = sorted(job.work_folder.glob("logs/*/attempt_0/*/stderr.log"))
    assert len(logs) == 2, "a log for each rank"

    def keep(phase: str, done: int, *_: Any) -> None:
        if phase == "update":
            steps.append(done)

    metrics = train_in_children(job, settings, report=keep)
    assert steps[0] > 4 and steps[-1] == 12, "saved steps were not repeated"
    assert curve(metrics)  # and every node has ended well
    assert_same_update(alone, job)
    AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint")


def test_an_error_of_a_rank_is_that_of_the_update(tmp_path: Path, nodes: Nodes) -> None:
    pairs = make_pairs(4)
    pairs[2] = replace(pairs[2], weight=1e39)  # infinite as a float32
    job = make_job(tmp_path, pairs)
    with pytest.raises(TrainingError, match=r"training step 1: the loss is inf on pairs pair-2;"):
        train_in_children(job, on(nodes, nodes=2, processes_per_node=1))
    assert not list(job.work_folder.glob("checkpoint*"))


def test_all_nodes_stop_after_the_same_step(tmp_path: Path, nodes: Nodes) -> None:
    from cases.stopping import Sender, saved

    from selfreward import signals

    job = make_job(tmp_path, make_pairs(11))
    alone = replace(job, work_folder=tmp_path / "alone")
    expected = train(alone, LONG)
    settings = on(nodes, nodes=2, processes_per_node=1)
    seldom = settings.model_copy(update={"training": LONG.model_copy(update={"save_every_steps": 1000})})
    sender = Sender("update", 3, signal.SIGTERM)
    with signals.raised(), pytest.raises(signals.Preempted):
        train_in_children(job, seldom, report=sender)
    assert saved(job) == [f"checkpoint-{sender.steps[-1]}"]
    metrics = train_in_children(job, seldom)
    assert curve(metrics) == pytest.approx(curve(expected), abs=TOLERANCE)


def test_a_node_that_cannot_see_the_files_is_named(
    tmp_path: Path, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node checks what the driver has sent: here it finds another text in the file."""
    from selfreward.updates import launcher, ray_nodes

    monkeypatch.setattr(launcher, "write_text_atomically", lambda *_: None)
    monkeypatch.setattr(ray_nodes, "FILES_S", 0.0)
    job = make_job(tmp_path, make_pairs(4))
    with pytest.raises(TrainingError, match=r"launch.nodes: .* cannot read .*child.json; .* all nodes share"):
        train_in_children(job, on(nodes, nodes=2, processes_per_node=1))


def test_too_few_nodes_are_counted(tmp_path: Path, nodes: Nodes) -> None:
    job = make_job(tmp_path, make_pairs(4))
    with pytest.raises(TrainingError, match=r"launch.nodes: 3, but the Ray cluster has 2 nodes; .* add nodes"):
        train_in_children(job, on(nodes, nodes=3))


def test_a_lost_node_ends_the_update_with_its_name(tmp_path: Path, nodes: Nodes) -> None:
    """Last: the node is gone afterwards."""
    job = make_job(tmp_path, make_pairs(11))

    def kill(phase: str, done: int, *_: Any) -> None:
        if (phase, done) == ("update", 3):
            found.extend(rank for raylet in nodes.raylets for rank in ranks_of(raylet))
            node = psutil.Process(nodes.raylets[1])
            for process in [node, *node.children(recursive=True)]:
                process.kill()

    found: list[psutil.Process] = []
    with pytest.raises(TrainingError, match=r"training: the node .* was lost \(\w+\); all 2 nodes are needed"):
        train_in_children(job, on(nodes, nodes=2, processes_per_node=1), report=kill)
    gone, alive = psutil.wait_procs(found, timeout=30)
    assert len(gone) == 2 and not alive
