"""Adapters over weights that are sharded: the update of one process, saved, resumed and merged by several."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cases.ranks import WEIGHTS, assert_same_update, finished, kill_at_step, run_ranks, start_ranks
from cases.training import SECTION, check, make_job, make_pairs, train_with, write_policy
from safetensors.torch import load_file

from selfreward.errors import RecipeError
from selfreward.recipe import LaunchSection, LoraSection, TrainingSection

pytestmark = pytest.mark.usefixtures("one_thread")

LORA = LoraSection(rank=4, alpha=8.0)
ONE_BY_ONE = SECTION.model_copy(update={"micro_batch_size": 1, "save_every_steps": 2, "learning_rate": 1e-2})
LONG = ONE_BY_ONE.model_copy(update={"num_epochs": 4})  # 12 steps


@pytest.mark.parametrize(("base", "reference"), [("float32", "iteration_start"), ("bfloat16", "initial")])
def test_sharded_adapters_are_those_of_one_process(tmp_path: Path, forks: Any, base: Any, reference: Any) -> None:
    """Each process has half of every layer and of every adapter; the main one merges them into the policy's files."""
    job = make_job(tmp_path, make_pairs(11), initial=write_policy(tmp_path / "initial", seed=2))
    section = ONE_BY_ONE.model_copy(update={"reference": reference})
    lora = LORA.model_copy(update={"base_dtype": base})
    alone = replace(job, work_folder=tmp_path / "alone")
    train_with(alone, training=section, lora=lora)
    run_ranks(forks, job, section, sharding="fsdp", lora=lora)
    if base == "float32":
        assert_same_update(alone, job)
    else:  # sums in another order are rounded to other bfloat16 numbers
        assert finished(job)["reward_margin_after"] == pytest.approx(finished(alone)["reward_margin_after"], rel=0.1)
    old, new = load_file(job.policy / "model.safetensors"), load_file(job.work_folder / WEIGHTS)
    assert old.keys() == new.keys()
    for name, weights in old.items():
        assert torch.equal(new[name], weights) != name.endswith("_proj.weight"), name
        assert new[name].dtype == torch.float32
    for number in (0, 1):
        lines = (job.work_folder / f"shards-{number}.jsonl").read_text().splitlines()
        passes = [json.loads(line) for line in lines]
        if number == 0:  # the canary is computed by the checkpoint, which is loaded unsharded
            assert not passes.pop()["sharded"]
        assert passes and all(made["sharded"] and made["share"] == 0.5 for made in passes)


def test_sharded_adapters_killed_and_resumed(tmp_path: Path, forks: Any) -> None:
    """A save contains adapters and their moments alone."""
    job = make_job(tmp_path, make_pairs(11))
    alone = replace(job, work_folder=tmp_path / "alone")
    train_with(alone, training=LONG, lora=LORA)
    ranks, output = start_ranks(forks, job, LONG, sharding="fsdp", lora=LORA)
    kill_at_step(ranks, output, 5)
    (save,) = job.work_folder.glob("saves/checkpoint-*/complete.json")
    state = torch.load(save.with_name("state.pt"), weights_only=True)
    assert state["weights"] and all("lora_" in name for name in state["weights"])
    ranks, output = start_ranks(forks, job, LONG, sharding="fsdp", lora=LORA)
    steps = [done for phase, done, *_ in (json.loads(line)["report"] for line in output) if phase == "update"]
    for process in ranks:
        process.join()
    assert steps[0] > 4 and steps[-1] == 12
    assert_same_update(alone, job)


def test_what_can_be_sharded_with_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launch = LaunchSection(processes_per_node=2, sharding="fsdp")
    check(training=TrainingSection(weights_dtype="bfloat16"), lora=LORA, launch=launch)  # only the merged model is
    with pytest.raises(RecipeError, match=r"bfloat16 with launch\.sharding: fsdp; .* in float32"):
        check(training=TrainingSection(weights_dtype="bfloat16"), launch=launch)
