"""The baseline: TRL's stock `DPOTrainer` on the same pairs in the same order, in three variants.

Two things differ from normal use: the pairs are given as token ids, because TRL would tokenise text; and `grouped`
sorts the pairs within each optimizer step by length, because TRL's own grouping covers the complete data set, and its
steps would contain different pairs from ours.
"""

import functools
import itertools
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from dpo_step_pairs import read_rows
from dpo_step_run import BETA, LEARNING_RATE, MAX_GRAD_NORM, Job, Result, now, peak_gib
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer


class StepClock(TrainerCallback):  # type: ignore[misc]  # TRL and transformers have no types
    """Seconds from the end of one optimizer step to the end of the next, with loading and logging."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._ends: list[tuple[float, float]] = []

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._ends = [(now(self._device), time.process_time())]

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._ends.append((now(self._device), time.process_time()))

    def between(self) -> tuple[list[float], list[float]]:
        """Return wall-clock and CPU seconds of each step."""
        steps = list(itertools.pairwise(self._ends))
        return [end[0] - begin[0] for begin, end in steps], [end[1] - begin[1] for begin, end in steps]


class Peer(DPOTrainer):  # type: ignore[misc]
    """The stock trainer, except that pairs are token ids already and its reference pass is timed."""

    pass_seconds = 0.0

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Dataset:
        device = self.args.device.type
        started = now(device)
        dataset = super()._precompute_ref_logps(*args, **kwargs)
        self.pass_seconds = now(device) - started
        return dataset


def as_is(job: Job) -> Result:
    """TRL's default: the reference model computes every micro-batch too; its log-probabilities are in the result."""
    trainer, clock = _trainer(job, precompute=False, grouped=False)
    found: list[torch.Tensor] = []
    trainer.ref_model.register_forward_hook(lambda model, args, out: found.append(out.log_probs.sum(1)))
    result = _trained(trainer, clock, job.device)
    halves = [sums.chunk(2) for sums in found]
    chosen, rejected = (torch.cat([half[side] for half in halves]).tolist() for side in (0, 1))
    return Result(**{**vars(result), "reference": (chosen, rejected)})


def precompute(job: Job) -> Result:
    """TRL with `precompute_ref_log_probs`: one reference pass over all pairs, before the steps."""
    return _trained(*_trainer(job, precompute=True, grouped=False), job.device)


def grouped(job: Job) -> Result:
    """TRL's default, with pairs of similar length in a micro-batch."""
    return _trained(*_trainer(job, precompute=False, grouped=True), job.device)


VARIANTS: dict[str, Callable[[Job], Result]] = {"trl": as_is, "trl_precompute": precompute, "trl_grouped": grouped}


def _trainer(job: Job, *, precompute: bool, grouped: bool) -> tuple[Peer, StepClock]:
    rows = read_rows(job.pairs, job.num_steps * job.pairs_per_step)
    if grouped:
        starts = range(0, len(rows), job.pairs_per_step)
        rows = [row for start in starts for row in sorted(rows[start : start + job.pairs_per_step], key=_length)]
    load = functools.partial(AutoModelForCausalLM.from_pretrained, job.model, dtype=torch.float32)
    clock = StepClock(job.device)
    trainer = Peer(
        load(),
        None if precompute else load(),
        args=_arguments(job, precompute=precompute),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(job.model),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer, clock


def _length(row: dict[str, Any]) -> int:
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def _arguments(job: Job, *, precompute: bool) -> DPOConfig:
    return DPOConfig(
        output_dir=tempfile.gettempdir(),
        beta=BETA,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_grad_norm=MAX_GRAD_NORM,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        max_steps=job.num_steps,
        per_device_train_batch_size=job.micro,
        gradient_accumulation_steps=job.pairs_per_step // job.micro,
        train_sampling_strategy="sequential",
        max_length=None,  # nothing is truncated
        precompute_ref_log_probs=precompute,
        gradient_checkpointing=False,
        disable_dropout=True,
        bf16=job.device == "cuda",  # autocast, TRL's default; float32 on the CPU
        use_cpu=job.device == "cpu",
        dataloader_pin_memory=job.device == "cuda",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )


def _trained(trainer: Peer, clock: StepClock, device: str) -> Result:
    trainer.train()
    return result_of(trainer, clock, device, pass_seconds=trainer.pass_seconds)


def result_of(trainer: DPOTrainer, clock: StepClock, device: str, *, pass_seconds: float) -> Result:
    """Return the result of any transformers trainer that has ended."""
    steps = [row for row in trainer.state.log_history if "grad_norm" in row]
    seconds, cpu_seconds = clock.between()
    return Result(
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        loss=[row["loss"] for row in steps],
        grad_norm=[float(row["grad_norm"]) for row in steps],
        peak_gib=peak_gib(device),
        pass_seconds=pass_seconds,
    )
