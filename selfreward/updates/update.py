"""Training as a function of files: a job in, a checkpoint folder and metrics out.

The work folder of a job contains `job.json` (the description of the job), `reference.parquet`, `saves/` (for resume)
and, at the end, `training.json` (the metrics) and `checkpoint/`. The checkpoint folder is renamed last, so it is
complete whenever it exists.
"""

import contextlib
import ctypes
import functools
import gc
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from transformers.utils import logging as transformers_logging

from selfreward import signals
from selfreward.errors import StoreError, TrainingError
from selfreward.recipe import TrainingSection
from selfreward.seeding import seed_of
from selfreward.store.files import sha256_of, weights_sha256, write_text_atomically
from selfreward.store.lock import RunLock
from selfreward.updates import checkpoint, saves
from selfreward.updates import pairs as pairs_file
from selfreward.updates.adapters import base_dtype
from selfreward.updates.batches import PairBlock, batches
from selfreward.updates.job import TrainingJob
from selfreward.updates.models import load_model
from selfreward.updates.progress import Report, silent
from selfreward.updates.reference import Reference, ReferencePass
from selfreward.updates.settings import COUPLED_LOSSES, Settings
from selfreward.updates.short_memory import advice
from selfreward.updates.stepping import IsAsked, saved_when_stopped, stop, take_steps

if TYPE_CHECKING:
    from selfreward.updates.trainer import Step, Trainer

# With several processes, only the main one locks and writes the work folder.
IS_MAIN = os.environ.get("RANK", "0") == "0"


def train(
    job: TrainingJob, settings: Settings, *, report: Report = silent, is_asked: IsAsked = signals.waits
) -> dict[str, Any]:
    """Train, or continue where a killed call of the same job stopped, or return the metrics of a finished job.

    The metrics, also in `work_folder/training.json`:

    * `num_pairs` (trained on), `num_pairs_available` (in the file), `num_steps`, `num_epochs`; `loss_first`,
      `loss_last`; `grad_norm_mean`, `grad_norm_max` (before clipping).
    * Over the trained pairs (a seeded sample of 256 when there are more; with `reference_logprobs: sampler` only pairs
      that the trainer's reference pass computed): `reward_margin_before` and `reward_margin_after` (mean of beta times
      chosen minus rejected log-ratio to the reference), `chosen_logp_move`, `rejected_logp_move` (mean change in nats
      since the start of the iteration) and `reward_accuracy_vs_pairs` (share of pairs whose chosen response has the
      higher reward afterwards).
    * `changed_weight_share`, `seen_update_share` (after rounding to `engine_dtype`), and the facts of `ReferencePass`.
    * `num_tokens` (of all optimizer steps, unpadded, each prompt twice), `num_computed_tokens` (computed by the model
      in these steps), `tokens_per_s`, `seconds_update` (steps only, without work lost at a kill), `seconds` (all time
      but what a killed call spent outside the steps).
    * `steps`: a list of {step, loss, grad_norm, learning_rate, reward_margin (before the step, on its own pairs)}.

    Raises TrainingError when the update cannot be made, and StoreError when files cannot be read or written. When
    `is_asked`, it saves at the end of its step and raises Preempted or, for Ctrl-C, KeyboardInterrupt.
    """
    started = time.monotonic()
    lock = RunLock(job.work_folder) if IS_MAIN else None
    try:
        if IS_MAIN:
            _claim(job, settings)
        final, metrics_file = job.work_folder / "checkpoint", job.work_folder / "training.json"
        if not final.exists():
            with _quiet_libraries(), signals.held():
                _train_to_checkpoint(job, settings, _stopping(report, settings, is_asked), started, is_asked)
            signals.check()  # one that came after the last chance to stop
        if not IS_MAIN:
            return {}
        # A kill between renaming the checkpoint and this line leaves the saves behind.
        shutil.rmtree(job.work_folder / "saves", ignore_errors=True)
        metrics: dict[str, Any] = json.loads(metrics_file.read_text(encoding="utf-8"))
        return metrics
    except torch.OutOfMemoryError as error:
        raise TrainingError(f"training: {str(error).splitlines()[0]}; {advice(settings)}") from error
    finally:
        if lock is not None:
            lock.release()
        _release_memory()


def _stopping(report: Report, settings: Settings, is_asked: IsAsked) -> Report:
    """Return the report, which also ends a pass without steps when it is asked to stop.

    Several processes finish the pass after training, because their main process cannot save alone.
    """

    def stopping(phase: str, *progress: Any) -> None:
        report(phase, *progress)
        is_alone = settings.launch.num_processes == 1
        if (phase == "reference" or (phase == "measure" and is_alone)) and is_asked():
            stop(f"in the {phase} pass")

    return stopping


def _claim(job: TrainingJob, settings: Settings) -> None:
    """Write `job.json`, or refuse a work folder that another job began, naming the keys that differ."""
    description = _description(job, settings)
    path = job.work_folder / "job.json"
    if not path.exists():
        write_text_atomically(path, json.dumps(description, indent=1))
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    if differing := [key for key in description if stored.get(key) != description[key]]:
        raise StoreError(
            f"{job.work_folder}: begun with another {', '.join(differing)}; only the same job may continue; "
            "restore these, or remove this folder to train again"
        )


def _description(job: TrainingJob, settings: Settings) -> dict[str, Any]:
    """Return everything that the result depends on. Keys that may change on resume do not, and are left out."""
    section = settings.training
    changeable = {
        name
        for name, field in TrainingSection.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("may_change_on_resume")
    }
    description = {
        "iteration": job.iteration,
        "seed": job.seed,
        "pairs_sha256": sha256_of(_require(job.pairs_file)),
        "policy_sha256": weights_sha256(_require(job.policy)),
        **{f"training.{key}": value for key, value in section.model_dump(mode="json", exclude=changeable).items()},
        "lora": settings.lora and settings.lora.model_dump(),
    }
    if section.reference == "initial":
        description["initial_sha256"] = weights_sha256(_require(job.initial))
    return description


def _require(path: Path) -> Path:
    if not path.exists():
        raise StoreError(f"{path}: does not exist; training reads it; run the stage that makes it again")
    return path


def _train_to_checkpoint(
    job: TrainingJob, settings: Settings, report: Report, started: float, is_asked: IsAsked
) -> None:
    """Read the pairs, train, and write metrics and checkpoint."""
    seed = seed_of(job.seed, job.iteration, "training", "subset", bits=31)
    pairs, num_available = pairs_file.read_pairs(job.pairs_file, max_pairs=settings.training.max_pairs, seed=seed)
    _check_coupled_losses(settings.training, pairs)
    partial = job.work_folder / "checkpoint.partial"
    metrics = _optimize(job, settings, pairs, partial, report, is_asked)
    gc.collect()  # the trainer and its model are in reference cycles, and two models are loaded next
    if not IS_MAIN:
        return
    trust = settings.trust_remote_code
    with saves.writing(partial):
        checkpoint.write_canary(partial, trust_remote_code=trust)
    metrics |= {
        "num_pairs": pairs.num_rows,
        "num_pairs_available": num_available,
        "num_epochs": settings.training.num_epochs,
        **checkpoint.rounded_update_metrics(job.policy, partial, dtype=settings.engine_dtype, trust_remote_code=trust),
    }
    metrics["seconds"] = time.monotonic() - started + metrics.pop("seconds_before")
    write_text_atomically(job.work_folder / "training.json", json.dumps(metrics, indent=1, allow_nan=False))
    checkpoint.commit(partial, job.work_folder / "checkpoint")


def _check_coupled_losses(section: TrainingSection, pairs: pa.Table) -> None:
    """Refuse weights and soft labels of pairs with losses that are not a mean over pairs."""
    coupled = [loss.kind for loss in section.losses if loss.kind in COUPLED_LOSSES]
    for name in pairs_file.RANGES if coupled else ():
        if other := [pair for pair, value in zip(pairs["id"].to_pylist(), pairs[name].to_pylist(), strict=True)
                     if value != 1]:  # fmt: skip
            raise TrainingError(
                f"training.losses: {coupled[0]} is not a mean over pairs, and pair {other[0]} has a {name} other than "
                f"1; other losses allow any {name}; use one of them, or a pairing that does not set {name}"
            )


def _optimize(
    job: TrainingJob, settings: Settings, table: pa.Table, partial: Path, report: Report, is_asked: IsAsked
) -> dict[str, Any]:
    """Take the optimizer steps and the pass after them; write the weights to `partial` and return the metrics."""
    section, pairs = settings.training, PairBlock.of(table)
    plan = [*batches(
        table.num_rows,
        batch_size=section.batch_size,
        num_epochs=section.num_epochs,
        seed=seed_of(job.seed, job.iteration, "training", "order", bits=31),
    )]  # fmt: skip
    build = functools.partial(_make_trainer, job, settings, table, pairs, len(plan), report)
    reference_pass = ReferencePass(job, section, table)
    reference_pass.run_under_initial(build)
    trainer = build(job.policy)
    logps = reference_pass.run_under_policy(trainer)
    folder, stored = job.work_folder / "saves", reference_pass.read()
    seconds_before, seconds_update = take_steps(trainer, pairs, logps, plan, folder=folder, is_asked=is_asked)
    with saved_when_stopped(trainer, folder, seconds=seconds_update):
        after = trainer.logps(pairs, stored.measured_rows, phase="measure")
    model, state = trainer.full_model(job.policy)
    if IS_MAIN:
        checkpoint.write_model(model, partial, state=state, policy=job.policy, dtype=section.weights_dtype)
    trainer.close()
    num_tokens = pairs_file.num_tokens(table) * section.num_epochs
    return {
        **_step_metrics(trainer.steps),
        **_margin_metrics(section.beta, stored, after, from_start=section.reference == "iteration_start"),
        **reference_pass.facts(),
        "num_tokens": num_tokens,
        "tokens_per_s": num_tokens / seconds_update,
        "seconds_update": seconds_update,
        "seconds_before": seconds_before,
    }


def _make_trainer(
    job: TrainingJob,
    settings: Settings,
    table: pa.Table,
    pairs: PairBlock,
    num_steps: int,
    report: Report,
    folder: Path,
) -> "Trainer":
    """Return a trainer of the model in `folder`."""
    model = load_model(
        folder,
        dtype=base_dtype(settings.lora) if settings.lora else settings.training.weights_dtype,
        trust_remote_code=settings.trust_remote_code,
        # The main process sends every process its shards.
        with_weights=IS_MAIN or not settings.launch.is_sharded,
    )
    embeddings = model.get_input_embeddings().num_embeddings
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    pairs_file.check_fits(table, vocabulary=embeddings, context_tokens=context)
    # TRL takes seconds to import, so the input is checked first.
    from selfreward.updates.trainer import Trainer

    return Trainer(
        model,
        settings=settings,
        first=pairs,
        num_steps=num_steps,
        seed=seed_of(job.seed, job.iteration, "training", "order", bits=31),
        report=report,
    )


def _step_metrics(steps: Sequence["Step"]) -> dict[str, Any]:
    norms = [step.grad_norm for step in steps]
    shown = ("step", "loss", "grad_norm", "learning_rate", "reward_margin")
    return {
        "num_steps": len(steps),
        "num_computed_tokens": sum(step.num_computed_tokens for step in steps),
        "loss_first": steps[0].loss,
        "loss_last": steps[-1].loss,
        "grad_norm_mean": float(np.mean(norms)),
        "grad_norm_max": max(norms),
        "steps": [{name: getattr(step, name) for name in shown} for step in steps],
    }


def _margin_metrics(
    beta: float, stored: Reference, after: tuple[list[float], list[float]], *, from_start: bool
) -> dict[str, float]:
    measured = stored.measured_rows
    chosen_B, rejected_B = np.array(after[0]), np.array(after[1])
    start_chosen_B = np.array([stored.start_chosen[row] for row in measured], float)
    start_rejected_B = np.array([stored.start_rejected[row] for row in measured], float)
    # For the iteration's start, the trainer's own numbers: the engine's differ by more than one step changes them.
    ref_B = start_chosen_B - start_rejected_B
    if not from_start:
        ref_B = np.array([stored.chosen[row] - stored.rejected[row] for row in measured])
    # 2305.18290, equation 5: reward = beta * log(pi / pi_ref), up to a term that cancels in the margin.
    margin_before_B = beta * (start_chosen_B - start_rejected_B - ref_B)
    margin_after_B = beta * (chosen_B - rejected_B - ref_B)
    return {
        "reward_margin_before": float(margin_before_B.mean()),
        "reward_margin_after": float(margin_after_B.mean()),
        "reward_accuracy_vs_pairs": float((margin_after_B > 0).mean()),
        "chosen_logp_move": float((chosen_B - start_chosen_B).mean()),
        "rejected_logp_move": float((rejected_B - start_rejected_B).mean()),
    }


def _release_memory() -> None:
    """Return freed heap to the system: glibc retains it (over 1 GiB for 135 M weights), and the engine may need it."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another libc
            ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Silence progress bars and warnings of the libraries, but not their errors."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    bitsandbytes = logging.getLogger("bitsandbytes")  # PEFT imports it if it is installed
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", "OptimState8bit does not implement _stable_hash", UserWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        bitsandbytes.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
