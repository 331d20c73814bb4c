"""Several processes, adapters, and everything else that must not change the loss curve."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_training_update import SECTION, make_job, make_pairs, train

from selfreward.parts import TrainingJob
from selfreward.recipe import LaunchSection, TrainingSection
from selfreward.training import build

WEIGHTS = "checkpoint/model.safetensors"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


def train_with(job: TrainingJob, section: TrainingSection = SECTION, **options: Any) -> dict[str, Any]:
    return dict(build(section, engine_dtype="bfloat16", **options).train(job))


def curve(metrics: dict[str, Any]) -> list[float]:
    return [value for step in metrics["steps"] for value in (step["loss"], step["grad_norm"], step["reward_margin"])]


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_two_processes_make_the_same_update(tmp_path: Path, sharding: Any) -> None:
    """11 pairs by 4: the last step has fewer; with a budget of one pair a micro-batch some steps have an odd number."""
    job = make_job(tmp_path, make_pairs(11))
    section = SECTION.model_copy(update={"micro_batch_size": 1})
    one = train(job, section)
    launch = LaunchSection(num_processes=2, sharding=sharding)
    two_job = replace(job, work_folder=tmp_path / "two")
    two = train_with(two_job, section, launch=launch)
    assert curve(two) == pytest.approx(curve(one), abs=2e-5)
    assert two["reward_margin_after"] == pytest.approx(one["reward_margin_after"], abs=1e-4)
    assert two["num_computed_tokens"] == one["num_computed_tokens"]
    first, second = (load_file(folder / WEIGHTS) for folder in (job.work_folder, two_job.work_folder))
    assert first.keys() == second.keys()
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, atol=2e-5, rtol=1e-4)
