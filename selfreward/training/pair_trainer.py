"""The one file that knows TRL: its stable `DPOTrainer`, fed with token ids and with log-probabilities of our own.

What is overridden, and why, stands above each override; the losses and the loop are TRL's and transformers'.
"""

import gc
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from selfreward.errors import TrainingError
from selfreward.recipe import TrainingSection
from selfreward.training import reference, saves
from selfreward.training.progress import Report

MOST_IDS_NAMED = 32


@dataclass
class PairCollator(DataCollatorForPreference):  # type: ignore[misc]  # TRL has no types
    """Also says which pairs are in the batch: `pair_index`, rows of the pairs table."""

    def torch_call(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super().torch_call(examples)
        batch["pair_index"] = torch.tensor([example["pair_index"] for example in examples])
        return batch


class Flow(TrainerCallback):  # type: ignore[misc]
    """Reports each step, and keeps the Trainer from saving at the last one: the checkpoint follows at once."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # A resumed state carries the old value; save_every_steps may change on a started run.
        state.save_steps = args.save_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self._report("update", state.global_step, state.max_steps)
        if state.global_step >= state.max_steps:
            control.should_save = False
        return control


class PairTrainer(DPOTrainer):  # type: ignore[misc]
    """`pairs` has the columns of `pairs.read_pairs`. `ref_model` is needed only while `reference_file` is missing."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        ref_model: PreTrainedModel | None,
        tokenizer: PreTrainedTokenizerBase,
        pairs: pa.Table,
        args: DPOConfig,
        reference_file: Path,
        measured: list[int],
        report: Report,
        seconds_before: float = 0.0,
    ) -> None:
        self._ids: list[str] = pairs["id"].to_pylist()
        self._reference_file = reference_file
        self._measured = measured
        self._report = report
        self._seconds_before = seconds_before
        self._started = time.monotonic()
        self._step_pairs: list[int] = []
        # Padding is masked out everywhere, so any id of the vocabulary does.
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        super().__init__(
            model,
            ref_model,
            args=args,
            data_collator=PairCollator(pad_token_id=pad or 0),
            train_dataset=Dataset(pairs.drop_columns(["id"])).add_column("pair_index", list(range(pairs.num_rows))),
            processing_class=tokenizer,
            callbacks=[Flow(report)],
        )
        self.remove_callback(PrinterCallback)
        # The log-probabilities are kept, so the model goes: accelerate holds it too, in reference cycles.
        self.ref_model = None
        self.accelerator.free_memory()
        gc.collect()

    # TRL re-tokenises text and adds an end token; ours are the sampled ids already.
    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    # TRL caches by a hash of the model in memory. We keep the values in the work folder: those of the iteration's
    # start, whatever has been trained since.
    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if not self._reference_file.exists():
            everything = list(range(len(dataset)))
            chosen, rejected = self.logps(self.ref_model or self.model, everything, phase="reference")
            start = [chosen[row] for row in self._measured], [rejected[row] for row in self._measured]
            if self.ref_model is not None:
                start = self.logps(self.model, self._measured, phase="reference")
            reference.write(self._reference_file, self._ids, chosen, rejected, measured=self._measured, start=start)
        self.reference = reference.read(self._reference_file, self._ids)
        dataset = dataset.add_column("ref_chosen_logps", self.reference.chosen)
        return dataset.add_column("ref_rejected_logps", self.reference.rejected)

    def logps(self, model: Any, rows: list[int], *, phase: str) -> tuple[list[float], list[float]]:
        """Summed log-probabilities (nats) of chosen and rejected, in the order of `rows`. Raises TrainingError."""
        found: dict[int, tuple[float, float]] = {}
        was_training = model.training
        model.eval()
        try:
            for batch in self._batches(rows):
                index = batch.pop("pair_index").tolist()
                chosen, rejected = self.compute_ref_log_probs(model, self._prepare_inputs(batch))
                found.update(zip(index, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
                self._report(phase, len(found), len(rows))
        finally:
            model.train(was_training)
        if broken := [row for row in rows if not all(map(math.isfinite, found[row]))]:
            raise TrainingError(
                f"{phase} pass: the log-probability is not a finite number for pairs {self._named(broken)}; "
                "finite numbers; the model's weights are broken, or the precision is too low: look at its checkpoint"
            )
        return [found[row][0] for row in rows], [found[row][1] for row in rows]

    def _batches(self, rows: list[int]) -> Iterator[dict[str, torch.Tensor]]:
        """Long pairs first, so that a batch holds like lengths and too little memory shows at once."""
        dataset = self.train_dataset
        lengths = {row: _length(dataset[row]) for row in rows}
        ordered = sorted(rows, key=lambda row: (-lengths[row], row))
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(ordered), size):
            yield self.data_collator([dataset[row] for row in ordered[start : start + size]])

    # The pairs of the whole optimizer step, to weigh its micro batches and to name them in an error.
    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], int]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step_pairs = [row for batch in batches for row in batch["pair_index"].tolist()]
        return batches, len(self._step_pairs)

    # The Trainer averages over micro batches, which is the mean over pairs only when they are all of one size.
    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        rows = inputs.pop("pair_index").tolist()
        loss = super().compute_loss(model, inputs)
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss.item(), rows)
        # sum over micro batches of loss * share / num_micro = sum over pairs / num_pairs
        share = len(rows) * self.current_gradient_accumulation_steps / len(self._step_pairs)
        self._metrics["train"]["rewards/margins"][-1] *= share
        return loss * share

    # Called with the norm before clipping, before the optimizer's step.
    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(grad_norm):
            raise self._not_finite("gradient norm", float(grad_norm), self._step_pairs)
        return grad_norm

    def _not_finite(self, what: str, value: float, rows: list[int]) -> TrainingError:
        return TrainingError(
            f"training step {self.state.global_step + 1}: the {what} is {value} on pairs {self._named(rows)}; a finite "
            "number; nothing was written: look at these pairs, and lower training.learning_rate or training.beta"
        )

    def _named(self, rows: list[int]) -> str:
        names = ", ".join(self._ids[row] for row in rows[:MOST_IDS_NAMED])
        return names if len(rows) <= MOST_IDS_NAMED else f"{names} and {len(rows) - MOST_IDS_NAMED} more"

    @property
    def seconds(self) -> float:
        """Seconds of optimization so far, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def update(self, save: Path | None) -> None:
        """Trains to the end, from the complete save `save` when there is one."""
        self._started = time.monotonic()
        self.train(resume_from_checkpoint=None if save is None else str(save))

    # A save that a kill or a full disk cut short must not look like one; older ones go when the new one is complete.
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"  # transformers' own name
        with saves.writing(folder):
            super()._save_checkpoint(model, trial)
            saves.mark_complete(folder, step=step, seconds=self.seconds)
        saves.remove_others(folder)

    # Nothing but a checkpoint is written, and nothing is sent anywhere.
    def create_model_card(self, *args: Any, **kwargs: Any) -> None: ...

    def _send_telemetry(self) -> None: ...


def _length(example: dict[str, Any]) -> int:
    return len(example["prompt_ids"]) + max(len(example["chosen_ids"]), len(example["rejected_ids"]))


def micro_batch(section: TrainingSection) -> int:
    """The largest divisor of `batch_size` that is not above `micro_batch_size`: every step gets `batch_size` pairs."""
    sizes = range(min(section.micro_batch_size, section.batch_size), 0, -1)
    return next(size for size in sizes if section.batch_size % size == 0)


def configuration(section: TrainingSection, *, saves_folder: Path, num_pairs: int, seed: int) -> DPOConfig:
    """Everything that TRL or transformers would decide by itself is decided here."""
    micro = micro_batch(section)
    num_steps = math.ceil(num_pairs / section.batch_size) * section.num_epochs
    on_cuda = torch.cuda.is_available()
    kinds = [loss.kind for loss in section.losses]
    return DPOConfig(
        output_dir=str(saves_folder),
        loss_type=kinds,
        loss_weights=[loss.weight for loss in section.losses],
        # 2402.00856, section 5: EXO is not defined at 0.
        label_smoothing=1e-3 if "exo_pair" in kinds else 0.0,
        beta=section.beta,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.lr_scheduler,
        warmup_steps=math.ceil(section.warmup_ratio * num_steps),
        num_train_epochs=section.num_epochs,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=section.batch_size // micro,
        per_device_eval_batch_size=4 * micro,  # no gradients are kept in a pass
        max_grad_norm=section.max_grad_norm,
        weight_decay=section.weight_decay,
        optim="adamw_torch_fused",
        gradient_checkpointing=section.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,  # nothing is cut
        precompute_ref_log_probs=True,
        disable_dropout=True,
        remove_unused_columns=False,
        bf16=on_cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not on_cuda,
        dataloader_pin_memory=on_cuda,
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=section.save_every_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )
