"""Several processes, sharding and adapters: none of them may change the loss curve."""

import itertools
import json
import os
import select
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from cases.ranks import (
    TOLERANCE,
    WEIGHTS,
    assert_same_update,
    curve,
    finished,
    kill_at_step,
    run_ranks,
    settings_of,
    start_ranks,
)
from cases.training import SECTION, check, losses, make_job, make_pairs, plain_logp, train, write_policy
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from selfreward.errors import RecipeError, StoreError, TrainingError
from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates.child import train_in_child
from selfreward.updates.dpo import train as run_job
from selfreward.updates.job import TrainingJob

LORA = LoraSection(rank=4, alpha=8.0)
pytestmark = pytest.mark.usefixtures("one_thread")
# 11 pairs in steps of 4, one pair per micro-batch: the last step has fewer pairs, and some processes an odd number.
ONE_BY_ONE = SECTION.model_copy(update={"micro_batch_size": 1, "save_every_steps": 2})
LONG = ONE_BY_ONE.model_copy(update={"num_epochs": 4})  # 12 steps


def train_with(job: TrainingJob, section: TrainingSection = SECTION, **options: Any) -> dict[str, Any]:
    return dict(run_job(job, settings_of(section, **options)))


@pytest.mark.parametrize("packing", ["shared_prefix", "padded"])
def test_loss_curve_does_not_depend_on_micro_batches_and_processes(tmp_path: Path, forks: Any, packing: Any) -> None:
    """Micro-batches of 8, 4 and 1 pairs, with and without gradient checkpointing, in one process and in two."""
    job = make_job(tmp_path, make_pairs(11))
    wide = SECTION.model_copy(update={"batch_size": 8, "packing": packing, "save_every_steps": 2})
    jobs = []
    for number, (micro, num_processes, checkpointing) in enumerate(
        [(8, 1, False), (4, 1, True), (1, 1, False), (4, 2, False)]
    ):
        jobs.append(replace(job, work_folder=tmp_path / f"{number}"))
        section = wide.model_copy(update={"micro_batch_size": micro, "gradient_checkpointing": checkpointing})
        if num_processes == 1:
            train(jobs[-1], section)
        else:
            run_ranks(forks, jobs[-1], section, num=num_processes)
    metrics = [finished(job) for job in jobs]
    assert len(metrics[0]["steps"]) == 4
    for other in metrics[1:]:
        assert curve(other) == pytest.approx(curve(metrics[0]), abs=TOLERANCE)


def test_two_processes_killed_and_resumed_by_one_or_two(tmp_path: Path, forks: Any) -> None:
    """From a save of two killed ranks, two ranks of the product's launcher continue, or one process."""
    job = make_job(tmp_path, make_pairs(11))
    unbroken = replace(job, work_folder=tmp_path / "unbroken")
    train(unbroken, LONG)
    ranks, output = start_ranks(forks, job, LONG)
    kill_at_step(ranks, output, 5)
    assert not (job.work_folder / "checkpoint").exists()
    alone = replace(job, work_folder=tmp_path / "alone")
    shutil.copytree(job.work_folder, alone.work_folder)

    steps: list[int] = []
    two = settings_of(LONG, launch=LaunchSection(num_processes=2))
    train_in_child(job, two, report=lambda phase, done, *_: steps.append(done) if phase == "update" else None)
    assert steps[0] > 4 and steps[-1] == 12  # saved steps were not repeated
    assert_same_update(unbroken, job)
    train(alone, LONG)
    assert_same_update(unbroken, alone)


def test_error_of_one_rank_ends_all_of_them(tmp_path: Path) -> None:
    """One process has a pair with an infinite loss and reports it; the other waits for a gradient in vain."""
    pairs = make_pairs(4)
    pairs[2] = replace(pairs[2], weight=1e39)  # infinite as a float32
    job = make_job(tmp_path, pairs)
    ranks: set[psutil.Process] = set()

    def remember(*_: Any) -> None:
        ranks.update(p for p in psutil.Process().children(recursive=True) if p.environ().get("RANK"))

    settings = settings_of(ONE_BY_ONE, launch=LaunchSection(num_processes=2))
    with pytest.raises(TrainingError, match=r"training step 1: the loss is inf on pairs pair-2;"):
        train_in_child(job, settings, report=remember)
    assert len(ranks) == 2 and not [p for p in ranks if p.is_running()]
    assert not list(job.work_folder.glob("checkpoint*"))


DRIVER = """
import sys
from pathlib import Path
from selfreward.updates.job import TrainingJob
from selfreward.updates.child import train_in_child
from selfreward.updates.settings import Settings

job = TrainingJob(1, *map(Path, sys.argv[1:5]), seed=5)
train_in_child(job, Settings.model_validate_json(sys.argv[5]))
"""


@pytest.mark.parametrize("victim", ["driver", "rank"])
def test_kill_leaves_no_process(tmp_path: Path, victim: str) -> None:
    """The ranks have only just started, and may not yet have asked to be killed with their parent."""
    job = make_job(tmp_path, make_pairs(4))
    job.work_folder.mkdir()
    settings = settings_of(SECTION, launch=LaunchSection(num_processes=2)).model_dump_json()
    folders = [job.pairs_file, job.policy, job.initial, job.work_folder]
    command = [sys.executable, "-c", DRIVER, *map(str, folders), settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as driver:
        family: list[psutil.Process] = []
        descriptor = os.pidfd_open(driver.pid)
        while len(family) < 3:  # a launcher and two ranks
            assert not select.select([descriptor], [], [], 0.02)[0], "the driver ended by itself"
            family = psutil.Process(driver.pid).children(recursive=True)
        descriptors = [os.pidfd_open(process.pid) for process in family]
        psutil.Process(driver.pid if victim == "driver" else max(p.pid for p in family)).kill()
        assert all(select.select([descriptor], [], [], 20)[0] for descriptor in descriptors)
        assert driver.stderr is not None
        errors = driver.stderr.read()
    if victim == "rank":  # a machine that runs out of memory kills a process like this
        assert "TrainingError: training: the process was killed by SIGKILL" in errors
        assert "ran out of memory" in errors


@pytest.mark.parametrize("reference", ["iteration_start", "initial"])
def test_sharded_over_two_processes(tmp_path: Path, forks: Any, reference: Any) -> None:
    """Each process has half of every layer, in the steps and in all passes, including the pass under M_0."""
    initial = write_policy(tmp_path / "initial", seed=2)
    job = make_job(tmp_path, make_pairs(11), initial=initial)
    section = ONE_BY_ONE.model_copy(update={"packing": "padded", "reference": reference})  # no verification pass
    unsharded = replace(job, work_folder=tmp_path / "unsharded")
    train(unsharded, section)
    run_ranks(forks, job, section, sharding="fsdp")
    assert_same_update(unsharded, job)
    for number in (0, 1):
        lines = (job.work_folder / f"shards-{number}.jsonl").read_text().splitlines()
        passes = [json.loads(line) for line in lines]
        if number == 0:  # the canary is computed by the checkpoint, which is loaded unsharded
            assert not passes.pop()["sharded"]
        assert all(made["sharded"] and made["share"] == 0.5 for made in passes)
        # The passes before training (2 pairs per micro-batch), the steps, and the pass after training.
        kinds = [(step, len(list(group))) for step, group in itertools.groupby(made["step"] for made in passes)]
        num_before = 3 if reference == "iteration_start" else 6
        assert kinds == [(False, num_before), (True, 12), (False, 3)]


def test_sharded_training_killed_and_resumed(tmp_path: Path, forks: Any) -> None:
    job = make_job(tmp_path, make_pairs(11))
    unsharded = replace(job, work_folder=tmp_path / "unsharded")
    train(unsharded, LONG)
    ranks, output = start_ranks(forks, job, LONG, sharding="fsdp")
    kill_at_step(ranks, output, 5)
    with pytest.raises(StoreError, match=r"sharding: fsdp"):
        train(job, LONG)
    ranks, output = start_ranks(forks, job, LONG, sharding="fsdp")
    steps = [done for phase, done, *_ in (json.loads(line)["report"] for line in output) if phase == "update"]
    for process in ranks:
        process.join()
    assert steps[0] > 4 and steps[-1] == 12
    assert_same_update(unsharded, job)


def test_sharding_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, accelerate would silently replicate the model."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for num in (1, 2):
        launch = LaunchSection(num_processes=num, sharding="fsdp")
        with pytest.raises(RecipeError, match=r"launch\.sharding: fsdp without CUDA"):
            check(training=SECTION, launch=launch)


def test_adapters_are_merged_into_a_plain_model(tmp_path: Path) -> None:
    pairs = make_pairs(8)
    job = make_job(tmp_path, pairs)
    full = train(replace(job, work_folder=tmp_path / "full"))
    section = SECTION.model_copy(update={"num_epochs": 6})
    metrics = train_with(job, section, lora=LORA)
    # New adapters change nothing: without them the model is the reference, so nothing differs before the first step.
    assert metrics["loss_first"] == pytest.approx(full["loss_first"], abs=1e-6)
    assert metrics["steps"][0]["reward_margin"] == pytest.approx(0.0, abs=1e-6)
    assert metrics["reward_margin_before"] == 0.0 and metrics["reward_margin_after"] > 0.05

    folder = job.work_folder / "checkpoint"
    assert not list(folder.glob("adapter*"))
    old, new = load_file(job.policy / "model.safetensors"), load_file(folder / "model.safetensors")
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {name for name in old if name.endswith("_proj.weight")}
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert type(model).__name__ == "LlamaForCausalLM" and {p.dtype for p in model.parameters()} == {torch.float32}
    margins = []
    for p in pairs:
        moves = [
            plain_logp(folder, p.prompt_token_ids, ids) - plain_logp(job.policy, p.prompt_token_ids, ids)
            for ids in (p.chosen_token_ids, p.rejected_token_ids)
        ]
        margins.append(SECTION.beta * (moves[0] - moves[1]))
    assert metrics["reward_margin_after"] == pytest.approx(sum(margins) / len(margins), abs=1e-4)


def test_adapters_killed_and_resumed_to_the_same_bytes(tmp_path: Path) -> None:
    """With M_0 as reference, which is not the model without its adapters."""
    job = make_job(tmp_path, make_pairs(8), initial=write_policy(tmp_path / "initial", seed=2))
    section = SECTION.model_copy(update={"num_epochs": 4, "save_every_steps": 2, "reference": "initial"})
    unbroken = replace(job, work_folder=tmp_path / "unbroken")
    expected = train_with(unbroken, section, lora=LORA)
    without = train(replace(job, work_folder=tmp_path / "without"), section)
    assert abs(expected["reward_margin_before"]) > 0.01
    assert expected["loss_first"] == pytest.approx(without["loss_first"], abs=1e-6)
    assert expected["reward_margin_before"] == without["reward_margin_before"]

    from selfreward.updates.update import train as update

    def interrupt(phase: str, done: int, *_: Any) -> None:
        if (phase, done) == ("update", 5):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update(job, settings_of(section, lora=LORA), report=interrupt)
    assert [p.name for p in job.work_folder.glob("saves/*")] == ["checkpoint-4"]
    resumed = train_with(job, section, lora=LORA)
    assert resumed["steps"] == expected["steps"]
    assert (job.work_folder / WEIGHTS).read_bytes() == (unbroken.work_folder / WEIGHTS).read_bytes()
    padded = replace(job, work_folder=tmp_path / "padded")
    stock = train_with(padded, section.model_copy(update={"packing": "padded"}), lora=LORA)
    assert curve(stock) == pytest.approx(curve(expected), abs=TOLERANCE)


def test_adapters_of_bfloat16_weights(tmp_path: Path) -> None:
    """The weights are rounded once, when the adapters are merged, and not at every step."""
    job = make_job(tmp_path, make_pairs(8))
    metrics = train_with(job, SECTION.model_copy(update={"num_epochs": 6, "weights_dtype": "bfloat16"}), lora=LORA)
    assert AutoModelForCausalLM.from_pretrained(job.work_folder / "checkpoint").dtype == torch.bfloat16
    assert losses(metrics)[-1] < losses(metrics)[0] == pytest.approx(0.693, abs=0.02)
    assert metrics["reward_margin_after"] > 0.05
