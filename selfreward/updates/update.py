"""Training as a function of files: a job in, a checkpoint folder and metrics out.

The work folder of a job holds `job.json` (what is trained), `reference.parquet`, `saves/` (for resume) and, at the
end, `training.json` (the metrics) and `checkpoint/`. The checkpoint gets its name last, so whoever sees it sees all.
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

from selfreward.errors import StoreError, TrainingError
from selfreward.recipe import TrainingSection
from selfreward.seeding import seed_of
from selfreward.store.files import sha256_of, weights_sha256, write_text_atomically
from selfreward.store.lock import RunLock
from selfreward.updates import checkpoint, saves
from selfreward.updates import pairs as pairs_file
from selfreward.updates.batches import Batch, PairBlock, batches
from selfreward.updates.job import TrainingJob
from selfreward.updates.models import load_model
from selfreward.updates.processes import on_main
from selfreward.updates.progress import Report, silent
from selfreward.updates.reference import Reference, ReferencePass
from selfreward.updates.settings import COUPLED, Settings

if TYPE_CHECKING:
    from selfreward.updates.trainer import Logps, Step, Trainer

# Of several processes this one owns the work folder; the others compute with it and write nothing.
MAIN = os.environ.get("RANK", "0") == "0"


def train(job: TrainingJob, settings: Settings, *, report: Report = silent) -> dict[str, Any]:
    """Trains, or goes on where a killed call of the same job stopped, or returns what a finished one returned.

    The metrics, also in `work_folder/training.json`: `num_pairs` (trained on), `num_pairs_available` (in the file),
    `num_steps`, `num_epochs`; `loss_first`, `loss_last`; over the trained pairs (a seeded sample of 256 when there are
    more; with `reference_logprobs: sampler` those that the trainer passed over): `reward_margin_before` and
    `reward_margin_after` (mean of beta times chosen minus rejected log-ratio to the reference), `chosen_logp_move`,
    `rejected_logp_move` (mean nats since the iteration's start) and `reward_accuracy_vs_pairs` (share of pairs whose
    chosen response has the higher reward afterwards); `grad_norm_mean`, `grad_norm_max` (before clipping);
    `changed_weight_share`, `seen_update_share` (after rounding to `engine_dtype`); `num_tokens` (of all optimizer
    steps, unpadded, each prompt twice), `num_computed_tokens` (what the model computed of them), the facts of
    `ReferencePass`,
    `tokens_per_s`, `seconds_update` (steps alone; work lost at a kill is not counted), `seconds` (all of it, but for
    what a killed call spent outside the steps); `steps`: a list of {step, loss, grad_norm, learning_rate,
    reward_margin (before the step, on its own pairs)}.

    Raises TrainingError when the update cannot be made, StoreError when files cannot be read or written.
    """
    started = time.monotonic()
    section = settings.training
    lock = RunLock(job.work_folder) if MAIN else None
    try:
        if MAIN:
            _claim(job, settings)
        final, metrics_file = job.work_folder / "checkpoint", job.work_folder / "training.json"
        if not final.exists():
            with _quiet():
                _make(job, settings, report, started)
        if not MAIN:
            return {}
        # A kill may have come between the checkpoint's name and this.
        shutil.rmtree(job.work_folder / "saves", ignore_errors=True)
        metrics: dict[str, Any] = json.loads(metrics_file.read_text(encoding="utf-8"))
        return metrics
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"training: {str(error).splitlines()[0]}; micro_batch_tokens is {section.micro_batch_tokens}, "
            f"gradient_checkpointing {section.gradient_checkpointing}; lower the one or set the other to true"
        ) from error
    finally:
        if lock is not None:
            lock.release()
        _give_memory_back()


def _claim(job: TrainingJob, settings: Settings) -> None:
    """Refuses a work folder that holds another job's progress, naming what differs."""
    wanted = _description(job, settings)
    path = job.work_folder / "job.json"
    if not path.exists():
        write_text_atomically(path, json.dumps(wanted, indent=1))
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    if differing := [key for key in wanted if found.get(key) != wanted[key]]:
        raise StoreError(
            f"{job.work_folder}: begun with another {', '.join(differing)}; the same job goes on where it stopped; "
            "restore what changed, or remove this folder to train anew"
        )


def _description(job: TrainingJob, settings: Settings) -> dict[str, Any]:
    """All that the result depends on. Settings marked runtime are left out: they change how, not what."""
    section = settings.training
    runtime = {
        name
        for name, field in TrainingSection.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("runtime")
    }
    description = {
        "iteration": job.iteration,
        "seed": job.seed,
        "pairs_sha256": sha256_of(_existing(job.pairs_file)),
        "policy_sha256": weights_sha256(_existing(job.policy)),
        **{f"training.{key}": value for key, value in section.model_dump(mode="json", exclude=runtime).items()},
        "lora": settings.lora and settings.lora.model_dump(),
    }
    if section.reference == "initial":
        description["initial_sha256"] = weights_sha256(_existing(job.initial))
    return description


def _existing(path: Path) -> Path:
    if not path.exists():
        raise StoreError(f"{path}: not there; what training reads; run the stage before it again")
    return path


def _make(job: TrainingJob, settings: Settings, report: Report, started: float) -> None:
    """Everything from the pairs to the named checkpoint."""
    seed = seed_of(job.seed, job.iteration, "training", "subset", bits=31)
    pairs, num_available = pairs_file.read_pairs(job.pairs_file, max_pairs=settings.training.max_pairs, seed=seed)
    _check_pairs_are_apart(settings.training, pairs)
    partial = job.work_folder / "checkpoint.partial"
    metrics = _optimize(job, settings, pairs, partial, report)
    gc.collect()  # the trainer and its model are in reference cycles; two models are loaded next
    if not MAIN:
        return
    trust = settings.trust_remote_code
    with saves.writing(partial):
        checkpoint.write_canary(partial, trust_remote_code=trust)
    metrics |= {
        "num_pairs": pairs.num_rows,
        "num_pairs_available": num_available,
        "num_epochs": settings.training.num_epochs,
        **checkpoint.seen_by_the_engine(job.policy, partial, dtype=settings.engine_dtype, trust_remote_code=trust),
    }
    metrics["seconds"] = time.monotonic() - started + metrics.pop("seconds_before")
    write_text_atomically(job.work_folder / "training.json", json.dumps(metrics, indent=1, allow_nan=False))
    checkpoint.commit(partial, job.work_folder / "checkpoint")


def _check_pairs_are_apart(section: TrainingSection, pairs: pa.Table) -> None:
    """Weights and labels are of pairs, and some losses have no part for each pair that could be weighed."""
    coupled = [loss.kind for loss in section.losses if loss.kind in COUPLED]
    for name in pairs_file.RANGES if coupled else ():
        if other := [pair for pair, value in zip(pairs["id"].to_pylist(), pairs[name].to_pylist(), strict=True)
                     if value != 1]:  # fmt: skip
            raise TrainingError(
                f"training.losses: {coupled[0]} is not a mean over pairs, and pair {other[0]} has a {name} other than "
                f"1; without {coupled[0]} pairs may have any; use another loss, or a pairing that does not set {name}"
            )


def _optimize(job: TrainingJob, settings: Settings, table: pa.Table, partial: Path, report: Report) -> dict[str, Any]:
    """The optimizer's steps and the pass after them; leaves the weights in `partial`."""
    section, pairs = settings.training, PairBlock.of(table)
    plan = [*batches(
        table.num_rows,
        batch_size=section.batch_size,
        num_epochs=section.num_epochs,
        seed=seed_of(job.seed, job.iteration, "training", "order", bits=31),
    )]  # fmt: skip
    build = functools.partial(_trainer, job, settings, table, pairs, len(plan), report)
    reference_pass = ReferencePass(job, section, table)
    reference_pass.before_the_policy(build)
    trainer = build(job.policy)
    logps = reference_pass.of(trainer)
    seconds_before, seconds_update = _take_steps(trainer, pairs, logps, plan, folder=job.work_folder / "saves")
    kept = reference_pass.read()
    after = trainer.logps(pairs, kept.measured, phase="measure")
    model, state = trainer.whole()
    if MAIN:
        checkpoint.write_model(model, partial, state=state, policy=job.policy, dtype=section.weights_dtype)
    num_tokens = pairs_file.num_tokens(table) * section.num_epochs
    return {
        **_steps(trainer.steps),
        **_moves(section.beta, kept, after, from_start=section.reference == "iteration_start"),
        **reference_pass.facts(),
        "num_tokens": num_tokens,
        "tokens_per_s": num_tokens / seconds_update,
        "seconds_update": seconds_update,
        "seconds_before": seconds_before,
    }


def _take_steps(
    trainer: "Trainer", pairs: PairBlock, reference: "Logps", plan: Sequence[Batch], *, folder: Path
) -> tuple[float, float]:
    """All steps of `plan`, or those after the newest save in `folder`; the seconds of steps before it, and of all."""
    seconds_before = _resume(trainer, folder)
    started = time.monotonic()
    for batch in plan[len(trainer.steps) :]:
        trainer.step(pairs, reference, batch)
        num_steps = len(trainer.steps)
        # Not after the last step: the checkpoint follows at once.
        if num_steps % trainer.section.save_every_steps == 0 and num_steps < len(plan):
            _save(trainer, folder, seconds=seconds_before + time.monotonic() - started)
    return seconds_before, seconds_before + time.monotonic() - started


def _resume(trainer: "Trainer", folder: Path) -> float:
    """Continues from the newest complete save, if there is one; returns the seconds that its steps took."""
    save, facts = on_main(lambda: saves.newest(folder)) or (None, {})
    if save is None:
        return 0.0
    if facts["sharding"] != trainer.sharding:
        raise StoreError(
            f"{save}: made with launch.sharding: {facts['sharding']}, and now it is {trainer.sharding}; a training "
            f"goes on as it was begun; use {facts['sharding']} for this iteration, or remove this folder to train it "
            "anew"
        )
    trainer.load_state(save)
    return float(facts["seconds"])


def _save(trainer: "Trainer", folder: Path, *, seconds: float) -> None:
    """One that a kill or a full disk cuts short has no marker; older ones go when the new one is complete."""
    save = folder / f"checkpoint-{len(trainer.steps)}"
    with saves.writing(save):
        trainer.save_state(save)
        if MAIN:
            saves.mark_complete(save, step=len(trainer.steps), seconds=seconds, sharding=trainer.sharding)
            saves.remove_others(save)


def _trainer(
    job: TrainingJob,
    settings: Settings,
    table: pa.Table,
    pairs: PairBlock,
    num_steps: int,
    report: Report,
    folder: Path,
) -> "Trainer":
    """A trainer of the model in `folder`."""
    model = load_model(folder, dtype=settings.training.weights_dtype, trust_remote_code=settings.trust_remote_code)
    embeddings = model.get_input_embeddings().num_embeddings
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    pairs_file.check_fits(table, vocabulary=embeddings, context_tokens=context)
    # TRL takes seconds to import: what is wrong with the input shows before.
    from selfreward.updates.trainer import Trainer

    return Trainer(
        model,
        settings=settings,
        first=pairs,
        num_steps=num_steps,
        seed=seed_of(job.seed, job.iteration, "training", "order", bits=31),
        report=report,
    )


def _steps(steps: Sequence["Step"]) -> dict[str, Any]:
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


def _moves(
    beta: float, kept: Reference, after: tuple[list[float], list[float]], *, from_start: bool
) -> dict[str, float]:
    measured = kept.measured
    chosen_B, rejected_B = np.array(after[0]), np.array(after[1])
    start_chosen_B = np.array([kept.start_chosen[row] for row in measured], float)
    start_rejected_B = np.array([kept.start_rejected[row] for row in measured], float)
    # From the start the trainer's own numbers: the engine's differ from them by more than one step moves.
    ref_B = start_chosen_B - start_rejected_B
    if not from_start:
        ref_B = np.array([kept.chosen[row] - kept.rejected[row] for row in measured])
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


def _give_memory_back() -> None:
    """To the system: glibc keeps freed heap, over a GiB for a model of 135 M weights, and the engine may need it."""
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # another libc
            ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice from the libraries; their errors stay."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    bitsandbytes = logging.getLogger("bitsandbytes")  # PEFT imports it wherever it is installed
    level = bitsandbytes.level
    bitsandbytes.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        bitsandbytes.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
