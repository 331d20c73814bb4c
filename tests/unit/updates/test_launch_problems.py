"""Processes that cannot start, and sharding that would not shard, are found before a run."""

from typing import Any

import pytest
import torch

from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates import launch_problems as module
from selfreward.updates.launch_problems import launch_problems
from selfreward.updates.settings import Settings

AUTO = {"address": "auto"}


def found(*, num_gpus: int, **launch: Any) -> list[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        settings = Settings(
            training=TrainingSection(), engine_dtype="bfloat16", launch=LaunchSection.model_validate(launch)
        )
        return [problem.text for problem in launch_problems(settings)]


@pytest.mark.parametrize(
    ("num_gpus", "launch", "expected"),
    [
        (0, {"processes_per_node": 2}, []),
        (8, {"processes_per_node": 8, "sharding": "fsdp"}, []),
        (0, {"nodes": 2, "processes_per_node": 8, "sharding": "hsdp", "ray": AUTO}, []),  # the driver has no GPU
        (4, {"processes_per_node": 8}, ["launch.processes_per_node: 8, but this machine has 4 GPUs"]),
        (8, {"nodes": 2}, ["launch.nodes: 2 without launch.ray.address; a Ray cluster of at least 2 nodes"]),
        (8, {"processes_per_node": 8, "sharding": "hsdp"}, ["launch.sharding: hsdp with one node"]),
        (8, {"nodes": 2, "sharding": "hsdp", "ray": AUTO}, ["launch.sharding: hsdp with one process in a group"]),
        (0, {"processes_per_node": 2, "sharding": "fsdp"}, ["launch.sharding: fsdp without CUDA"]),
    ],
)
def test_what_can_start(num_gpus: int, launch: dict[str, Any], expected: list[str]) -> None:
    problems = found(num_gpus=num_gpus, **launch)
    assert len(problems) == len(expected)
    assert all(problem.startswith(text) for problem, text in zip(problems, expected, strict=True))


def test_several_nodes_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "has_ray", lambda: False)
    (problem,) = found(num_gpus=8, nodes=2, ray=AUTO)
    assert problem.startswith("launch.nodes: 2, but the package ray is not installed")
    assert "pip install 'selfreward-lm[cluster]'" in problem


@pytest.mark.parametrize("sharding", ["fsdp", "hsdp"])
def test_bfloat16_weights_are_not_sharded_without_adapters(sharding: str) -> None:
    launch = LaunchSection.model_validate({"nodes": 2, "processes_per_node": 2, "sharding": sharding, "ray": AUTO})
    section = TrainingSection(weights_dtype="bfloat16")
    settings = Settings(training=section, engine_dtype="bfloat16", launch=launch)
    (problem,) = launch_problems(settings)
    assert problem.text.startswith(f"training.weights_dtype: bfloat16 with launch.sharding: {sharding}")
    assert not list(launch_problems(settings.model_copy(update={"lora": LoraSection(rank=4)})))


def test_the_size_of_a_shard() -> None:
    sizes = {"nodes": 2, "processes_per_node": 8}
    found = [LaunchSection.model_validate({**sizes, "sharding": kind}) for kind in ("none", "fsdp", "hsdp")]
    assert [launch.num_shards for launch in found] == [1, 16, 8]
    assert {launch.num_processes for launch in found} == {16}
