"""Our update on the same pairs in the same order; packing as asked for, and the recipe's defaults otherwise."""

import tempfile
from pathlib import Path
from typing import Literal

from dpo_step_run import BETA, LEARNING_RATE, MAX_GRAD_NORM, Job, Result, now
from dpo_step_trl import StepClock, result_of
from torch.utils.data import DataLoader

from selfreward.recipe import TrainingSection
from selfreward.updates.configuration import configuration
from selfreward.updates.models import load_model, load_tokenizer
from selfreward.updates.pair_trainer import PairTrainer
from selfreward.updates.pairs import read_pairs
from selfreward.updates.settings import Settings


class InOrder(PairTrainer):
    """The pairs in the order of the file: losses can be compared step by step."""

    def get_train_dataloader(self) -> DataLoader[int]:
        size = self.args.per_device_train_batch_size
        return DataLoader(range(len(self.ids)), batch_size=size, collate_fn=list)  # type: ignore[arg-type]


def update(job: Job, *, with_pass: bool, packing: Literal["shared_prefix", "padded"]) -> Result:
    """`with_pass`: the reference pass is ours and in the result; else `job.reference` is taken as it is."""
    settings = Settings(
        training=TrainingSection(
            beta=BETA, learning_rate=LEARNING_RATE, max_grad_norm=MAX_GRAD_NORM, lr_scheduler="constant",
            batch_size=job.pairs_per_step, packing=packing,
        ),
        engine_dtype="float32",
    )  # fmt: skip
    pairs, _ = read_pairs(job.pairs, max_pairs=None, seed=0)
    pairs = pairs.slice(0, job.num_steps * job.pairs_per_step)
    folder = Path(tempfile.gettempdir())
    args = configuration(settings, saves_folder=folder, num_pairs=pairs.num_rows, seed=0)
    args.save_strategy = "no"
    trainer = InOrder(
        load_model(job.model, dtype="float32", trust_remote_code=False),
        settings=settings,
        tokenizer=load_tokenizer(job.model, trust_remote_code=False),
        pairs=pairs,
        args=args,
    )
    clock = StepClock(job.device)
    trainer.add_callback(clock)
    pass_seconds = 0.0

    def reference() -> tuple[list[float], list[float]]:
        nonlocal pass_seconds
        started = now(job.device)
        found = trainer.logps(list(range(pairs.num_rows)), phase="reference") if with_pass else given()
        pass_seconds = now(job.device) - started
        return found

    def given() -> tuple[list[float], list[float]]:
        if job.reference is None:
            raise ValueError(
                f"{job.contender}: needs the log-probabilities that `trl` finds; name it before {job.contender}"
            )
        chosen, rejected = job.reference
        return chosen[: pairs.num_rows], rejected[: pairs.num_rows]

    trainer.update(None, 0.0, reference=reference)
    return result_of(trainer, clock, job.device, pass_seconds=pass_seconds if with_pass else 0.0)
