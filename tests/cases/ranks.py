"""Ranks of an update, started as a launcher would, and the comparison of two updates."""

import json
import multiprocessing
import os
import socket
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch
from cases import fsdp_worker
from safetensors.torch import load_file

from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates.job import TrainingJob
from selfreward.updates.settings import Settings

WEIGHTS = "checkpoint/model.safetensors"
TOLERANCE = 2e-5  # float32 sums in another order


def fork_server() -> Any:
    """A fork server that has imported everything except the module that reads its rank at import."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["selfreward.updates.trainer", "transformers.models.llama", "cases.fsdp_worker"])
    return context


def settings_of(section: TrainingSection, **options: Any) -> Settings:
    return Settings(training=section, engine_dtype="bfloat16", **options)


def curve(metrics: dict[str, Any]) -> list[float]:
    return [value for step in metrics["steps"] for value in (step["loss"], step["grad_norm"], step["reward_margin"])]


def finished(job: TrainingJob) -> dict[str, Any]:
    return dict(json.loads((job.work_folder / "training.json").read_text()))


def assert_same_update(one: TrainingJob, other: TrainingJob) -> None:
    first, second = finished(one), finished(other)
    assert len(first["steps"]) == len(second["steps"])
    assert curve(second) == pytest.approx(curve(first), abs=TOLERANCE)
    assert second["reward_margin_after"] == pytest.approx(first["reward_margin_after"], abs=1e-4)
    assert second["num_computed_tokens"] == first["num_computed_tokens"]
    old, new = (load_file(job.work_folder / WEIGHTS) for job in (one, other))
    assert old.keys() == new.keys()
    for name, weights in old.items():
        torch.testing.assert_close(new[name], weights, atol=TOLERANCE, rtol=1e-4)


def start_ranks(
    forks: Any,
    job: TrainingJob,
    section: TrainingSection,
    *,
    num: int = 2,
    nodes: int = 1,
    lora: LoraSection | None = None,
    **options: Any,
) -> tuple[list[Any], Any]:
    """Start the ranks that a launcher would start; return them and the standard output of the first."""
    job.work_folder.mkdir(exist_ok=True)
    per_node = num // nodes
    launch = LaunchSection(nodes=nodes, processes_per_node=per_node, **options)
    settings = settings_of(section, lora=lora, launch=launch)
    file = job.work_folder / "child.json"
    file.write_text(json.dumps({"job": asdict(job), "settings": settings.model_dump(mode="json")}, default=str))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {
        "WORLD_SIZE": str(num),
        "LOCAL_WORLD_SIZE": str(per_node),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    reading, writing = os.pipe()
    discarded = os.open(os.devnull, os.O_WRONLY)
    ranks = []
    for number in range(num):
        out = multiprocessing.connection.Connection(os.dup(discarded if number else writing), readable=False)
        environment = {**common, "RANK": str(number), "LOCAL_RANK": str(number % per_node)}
        ranks.append(forks.Process(target=fsdp_worker.rank, args=(file, environment, out, file.with_name("log"))))
        ranks[-1].start()
        out.close()
    os.close(writing)
    os.close(discarded)
    return ranks, os.fdopen(reading)


def run_ranks(forks: Any, job: TrainingJob, section: TrainingSection, **options: Any) -> dict[str, Any]:
    ranks, output = start_ranks(forks, job, section, **options)
    output.read()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0] * len(ranks), (job.work_folder / "log").read_text()
    return finished(job)


def kill_at_step(ranks: Sequence[Any], output: Any, step: int) -> None:
    assert any(json.loads(line).get("report", [""])[:2] == ["update", step] for line in output)
    for process in ranks:
        process.kill()
        process.join()
