"""Our update on the same pairs in the same order, with the given packing and the recipe's defaults otherwise."""

import time
from typing import Literal

from dpo_step_run import BETA, LEARNING_RATE, MAX_GRAD_NORM, Job, Result, now, peak_gib

from selfreward.recipe import TrainingSection
from selfreward.updates.batches import PairBlock
from selfreward.updates.models import load_model
from selfreward.updates.pairs import read_pairs
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Logps, Trainer


def update(job: Job, *, with_pass: bool, packing: Literal["shared_prefix", "padded"]) -> Result:
    """Run our update. `with_pass`: make our own, timed reference pass; otherwise use `job.reference` as it is."""
    settings = Settings(
        training=TrainingSection(
            beta=BETA, learning_rate=LEARNING_RATE, max_grad_norm=MAX_GRAD_NORM, lr_scheduler="constant",
            batch_size=job.pairs_per_step, packing=packing,
        ),
        engine_dtype="float32",
    )  # fmt: skip
    table, _ = read_pairs(job.pairs, max_pairs=None, seed=0)
    pairs = PairBlock.of(table.slice(0, job.num_steps * job.pairs_per_step))
    model = load_model(job.model, dtype="float32", trust_remote_code=False)
    trainer = Trainer(model, settings=settings, first=pairs, num_steps=job.num_steps, seed=0)
    all_rows = list(range(len(pairs.ids)))
    started = now(job.device)
    reference = trainer.logps(pairs, all_rows, phase="reference") if with_pass else _given(job, len(all_rows))
    pass_seconds = now(job.device) - started
    seconds, cpu_seconds = [], []
    for first in all_rows[:: job.pairs_per_step]:
        started, cpu_started = now(job.device), time.process_time()
        trainer.step(pairs, reference, all_rows[first : first + job.pairs_per_step])
        seconds.append(now(job.device) - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    return Result(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        loss=[step.loss for step in trainer.steps],
        grad_norm=[step.grad_norm for step in trainer.steps],
        peak_gib=peak_gib(job.device),
        pass_seconds=pass_seconds if with_pass else 0.0,
    )


def _given(job: Job, num_pairs: int) -> Logps:
    if job.reference is None:
        raise ValueError(
            f"{job.contender}: needs the log-probabilities that `trl` computes; name `trl` before {job.contender}"
        )
    chosen, rejected = job.reference
    return chosen[:num_pairs], rejected[:num_pairs]
