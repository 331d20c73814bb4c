"""Failures of an update: numbers that are not finite, kills, full disks, child processes that die."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import safetensors.torch
from cases.training import SECTION, make_job, make_pairs, plain_logp, train, write_policy

from selfreward.errors import StoreError, TrainingError
from selfreward.recipe import TrainingSection, TrlLoss
from selfreward.updates.job import TrainingJob
from selfreward.updates.launcher import train_in_children
from selfreward.updates.settings import Settings

LONG = SECTION.model_copy(update={"num_epochs": 10, "save_every_steps": 2})  # 30 steps of 12 pairs
WEIGHTS = "model.safetensors"


def in_child(job: TrainingJob, section: TrainingSection, **options: Any) -> dict[str, Any]:
    return train_in_children(job, Settings(training=section, engine_dtype="bfloat16"), **options)


def assert_nothing_was_written(job: TrainingJob, policy_weights: bytes) -> None:
    assert (job.policy / WEIGHTS).read_bytes() == policy_weights
    assert not list(job.work_folder.glob("checkpoint*"))
    assert not (job.work_folder / "training.json").exists()


def test_loss_that_is_not_finite_names_step_and_pairs(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(4), initial=write_policy(tmp_path / "initial", seed=2))
    weights = (job.policy / WEIGHTS).read_bytes()
    # Half of the pairs start below the reference; this beta makes their loss infinite.
    with pytest.raises(TrainingError, match=r"training step 1: the loss is inf on pairs pair-\d, pair-\d;"):
        train(job, reference="initial", beta=3e38)
    assert_nothing_was_written(job, weights)


def test_gradient_that_is_not_finite_stops_before_the_step(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(3))
    weights = (job.policy / WEIGHTS).read_bytes()
    huge = [TrlLoss(kind="sigmoid", weight=3e38)]  # the loss itself is 2.1e38, the largest float 3.4e38
    with pytest.raises(TrainingError, match=r"training step 1: the gradient norm is (inf|nan) on pairs") as failure:
        train(job, losses=huge)
    assert all(f"pair-{i}" in str(failure.value) for i in range(3))  # both micro-batches
    assert_nothing_was_written(job, weights)


def test_later_steps_are_checked_too(tmp_path: Path) -> None:
    """A learning rate that breaks the model in its first steps."""
    job = make_job(tmp_path, make_pairs(12))
    with pytest.raises(TrainingError, match=r"training step [2-9]\d*: the (loss|gradient norm) is (nan|inf|-inf)"):
        train(job, learning_rate=1e30, save_every_steps=1, max_grad_norm=1e30, num_epochs=3)
    assert not list(job.work_folder.glob("checkpoint*"))


def test_policy_with_nan_weights_is_refused_before_training(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(3))
    weights = safetensors.torch.load_file(job.policy / WEIGHTS)
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    safetensors.torch.save_file(weights, job.policy / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"not a finite number for pairs pair-0, pair-1, pair-2;"):
        train(job)


def start(job: TrainingJob, section: TrainingSection) -> "subprocess.Popen[str]":
    job.work_folder.mkdir(parents=True, exist_ok=True)
    job_file = job.work_folder.parent / f"{job.work_folder.name}.json"
    settings = Settings(training=section, engine_dtype="bfloat16").model_dump(mode="json")
    job_file.write_text(json.dumps({"job": asdict(job), "settings": settings}, default=str))
    command = [sys.executable, "-m", "selfreward.updates.child", str(job_file)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def reported_steps(process: "subprocess.Popen[str]") -> Iterator[int]:
    assert process.stdout is not None
    for line in process.stdout:
        with contextlib.suppress(ValueError):
            phase, done, *_ = json.loads(line).get("report", ("", 0))
            if phase == "update":
                yield done


def complete_saves(job: TrainingJob) -> list[int]:
    return sorted(int(p.parent.name.split("-")[1]) for p in job.work_folder.glob("saves/*/complete.json"))


def test_killed_training_continues_to_the_same_bytes(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(12))
    unbroken = replace(job, work_folder=tmp_path / "unbroken")
    expected = train(unbroken, LONG)

    with start(job, LONG) as process:
        # Step 3 is reported after the save of step 2 is complete.
        assert next(step for step in reported_steps(process) if step == 3)
        process.kill()
    assert not (job.work_folder / "checkpoint").exists()
    saved = complete_saves(job)
    assert saved and saved[-1] < 30
    reference = job.work_folder / "reference.parquet"
    reference_written = reference.stat().st_mtime_ns
    # A kill in the middle of a save leaves a newer folder, with complete or incomplete files and without a marker.
    torn = job.work_folder / "saves" / "checkpoint-29"
    shutil.copytree(job.work_folder / "saves" / f"checkpoint-{saved[-1]}", torn)
    (torn / "complete.json").unlink()

    with start(job, LONG) as process:
        steps = list(reported_steps(process))
    assert process.returncode == 0
    assert steps == list(range(saved[-1] + 1, 31))  # no saved step was repeated, and the torn save was not used
    names = {p.name for p in (job.work_folder / "checkpoint").iterdir()}
    assert WEIGHTS in names
    for name in names:
        assert (job.work_folder / "checkpoint" / name).read_bytes() == (
            unbroken.work_folder / "checkpoint" / name
        ).read_bytes(), name
    resumed = json.loads((job.work_folder / "training.json").read_text())
    assert resumed["steps"] == expected["steps"]
    assert resumed["reward_margin_after"] == expected["reward_margin_after"]
    # The reference is the policy at the start of the iteration, not the half-trained one.
    assert reference.stat().st_mtime_ns == reference_written
    pair, row = make_pairs(12)[3], pq.read_table(reference).to_pylist()[3]
    assert row["chosen"] == pytest.approx(
        plain_logp(job.policy, pair.prompt_token_ids, pair.chosen_token_ids), abs=1e-3
    )


def test_resumed_training_uses_the_stored_reference(tmp_path: Path) -> None:
    """Other numbers in the file give other losses: the file is read, and nothing is computed again."""
    job = make_job(tmp_path, make_pairs(4))
    first = train(job, num_epochs=1)
    shutil.rmtree(job.work_folder / "checkpoint")
    reference = job.work_folder / "reference.parquet"
    table = pq.read_table(reference)
    shifted = table.set_column(1, "chosen", [[value - 5.0 for value in table["chosen"].to_pylist()]])
    pq.write_table(shifted, reference)
    again = train(job, num_epochs=1)
    assert again["steps"][0]["reward_margin"] == pytest.approx(first["steps"][0]["reward_margin"] + 0.1 * 5.0, abs=1e-4)


def test_work_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(4))
    train(job)
    with pytest.raises(StoreError, match=r"begun with another seed, training\.beta"):
        train(replace(job, seed=6), beta=0.2)
    write_policy(job.policy, seed=9)
    with pytest.raises(StoreError, match="begun with another policy_sha256"):
        train(job)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """1.9 MB: space for one save of a 0.5 MB model (three times its size), but not for a checkpoint as well."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1900k", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_loses_no_finished_work(tmp_path: Path, small_disk: Path) -> None:
    write_policy(tmp_path / "policy", seed=1, hidden=80)
    job = make_job(tmp_path, make_pairs(4), work_folder=small_disk / "work")
    size = (job.policy / WEIGHTS).stat().st_size
    assert 0.4 * 2**20 < size < 0.6 * 2**20  # a save is three times that
    with pytest.raises(StoreError, match=r"(?i)no space left.*same command again|failed writing|free some disk"):
        train(job, save_every_steps=1)
    assert complete_saves(job) == [1]
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    metrics = train(job, save_every_steps=1)
    assert metrics["num_steps"] == 2
    elsewhere = replace(job, work_folder=tmp_path / "elsewhere")
    train(elsewhere)
    assert (job.work_folder / "checkpoint" / WEIGHTS).read_bytes() == (
        elsewhere.work_folder / "checkpoint" / WEIGHTS
    ).read_bytes()


def test_child_process_reports_progress(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(4))
    reports: list[tuple[str, int, int, Any]] = []
    metrics = in_child(job, SECTION, report=lambda *progress: reports.append(progress))
    assert metrics == json.loads((job.work_folder / "training.json").read_text())
    assert metrics["reward_margin_after"] > 0
    assert (job.work_folder / "checkpoint" / WEIGHTS).exists()
    updates = [(done, total, measured) for phase, done, total, measured in reports if phase == "update"]
    assert [(done, total) for done, total, _ in updates] == [(1, 2), (2, 2)]
    assert [{name: step[name] for name in updates[0][2]} for step in metrics["steps"]] == [m for *_, m in updates]
    assert {phase for phase, *_ in reports} == {"reference", "update", "measure"}


def test_errors_and_the_end_of_the_log_of_a_child_are_raised(tmp_path: Path) -> None:
    job = make_job(tmp_path, make_pairs(3))
    with pytest.raises(StoreError, match=r"missing\.parquet: does not exist"):
        in_child(replace(job, pairs_file=tmp_path / "missing.parquet"), SECTION)
    (job.policy / WEIGHTS).write_bytes(b"not weights")
    with pytest.raises(TrainingError, match=r"(?s)ended with exit code 1;.*Traceback.*SafetensorError"):
        in_child(job, SECTION)
