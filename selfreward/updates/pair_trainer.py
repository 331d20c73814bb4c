"""The one file that knows TRL's trainer: its stable `DPOTrainer`, fed with token ids and log-probabilities of our own.

What is overridden, and why, stands above each override; the losses and the loop are TRL's and transformers'. One
batch of the loop is a whole optimizer step, in every process; each process divides it alike into micro-batches and
takes its share of them, so the gradient is the mean over the pairs whatever the packing and the number of processes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate.utils import broadcast_object_list, gather_object
from datasets import Dataset
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head

from selfreward.errors import TrainingError
from selfreward.updates import saves
from selfreward.updates.configuration import adapters
from selfreward.updates.losses import OWN, PairLogps, Replay, own_losses, trl_losses
from selfreward.updates.packing import attention, forward, support
from selfreward.updates.packing.layout import PairTokens, lay_out_pairs
from selfreward.updates.packing.micro_batches import Budget, divide
from selfreward.updates.progress import Report, silent
from selfreward.updates.settings import Settings

MOST_IDS_NAMED = 32
PASS_FACTOR = 4  # a pass keeps no gradients, so its micro-batches may be larger


class Order(Sampler[int]):
    """The pairs of an epoch in an order that depends on the seed and the epoch alone."""

    def __init__(self, num_pairs: int, *, seed: int, epoch: Callable[[], int]) -> None:
        self._num_pairs, self._seed, self._epoch = num_pairs, seed, epoch

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng([self._seed, self._epoch()]).permutation(self._num_pairs).tolist())

    def __len__(self) -> int:
        return self._num_pairs


class Flow(TrainerCallback):  # type: ignore[misc]  # TRL and transformers have no types
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
    """`pairs` has the columns of `pairs.read_pairs`."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        tokenizer: PreTrainedTokenizerBase,
        pairs: pa.Table,
        args: DPOConfig,
        settings: Settings,
        report: Report = silent,
    ) -> None:
        self.ids: list[str] = pairs["id"].to_pylist()
        columns = (pairs[name].to_pylist() for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        self._tokens = [PairTokens(*map(tuple, ids)) for ids in zip(*columns, strict=True)]
        section = settings.training
        self._own_losses = [loss for loss in section.losses if loss.kind in OWN]
        self._weight_B, self._label_B = (torch.tensor(pairs[name].to_pylist()) for name in ("weight", "label"))
        self._plain = bool((self._weight_B == 1).all() and (self._label_B == 1).all())
        packed = section.packing == "shared_prefix"
        self._budget = Budget(section.micro_batch_tokens, section.micro_batch_size, packed)
        self._report = report if args.process_index == 0 else silent
        # Log-probabilities in nats of chosen and rejected under the reference, for each pair; known from `update` on.
        self.reference: tuple[list[float], list[float]] | None = None
        self._started = time.monotonic()
        self._seconds_before = 0.0
        self._step_rows: list[int] = []
        if packed:
            longest = max(len(row) for pair in self._tokens for row in pair.rows)
            support.check_configuration(model.config, longest=longest)
            model.set_attn_implementation(attention.NAME)
            forward.install(model)
        # Padding is masked out everywhere, so any id of the vocabulary does.
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        super().__init__(
            model,
            args=args,
            data_collator=DataCollatorForPreference(pad_token_id=pad or 0),
            train_dataset=Dataset.from_dict({"row": list(range(len(self.ids)))}),
            processing_class=tokenizer,
            callbacks=[Flow(self._report)],
            peft_config=adapters(settings.lora),
        )
        self.remove_callback(PrinterCallback)
        # A router's load-balancing loss depends on the division into micro-batches; few steps do not need it.
        self.aux_loss_enabled = False
        if self.is_fsdp_enabled and args.bf16:
            # accelerate's own policy also returns log-probabilities and adds gradients up in bfloat16.
            self.accelerator.state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32
            )
        add_fused_lm_head(self.model.get_base_model() if settings.lora else self.model)  # TRL's, without its metrics
        trls = [loss for loss in section.losses if loss.kind not in OWN]
        self.loss_types, self.loss_weights = [loss.kind for loss in trls], [loss.weight for loss in trls]
        if packed:
            # The longest too: what goes wrong beyond a window is not seen on short pairs.
            by_length = sorted(self._tokens, key=lambda pair: max(map(len, pair.rows)))
            support.prove(self.model, [by_length[0], by_length[-1]], device=next(self.model.parameters()).device)

    # TRL re-tokenises text and adds an end token; ours are the sampled ids already.
    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    # TRL makes the pass here, before the model is sharded, and caches by a hash of its weights; ours is in `start`.
    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset

    # Every process sees every pair: accelerate would deal pairs out one by one, whatever their lengths.
    def get_train_dataloader(self) -> DataLoader[int]:
        size = self.args.per_device_train_batch_size
        num_steps = math.ceil(len(self.ids) / size)
        order = Order(len(self.ids), seed=self.args.data_seed, epoch=lambda: self.state.global_step // num_steps)
        return DataLoader(range(len(self.ids)), batch_size=size, sampler=order, collate_fn=list)  # type: ignore[arg-type]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], None]:
        return [next(epoch_iterator)], None

    def floating_point_ops(self, inputs: Any) -> int:
        return 0

    # The whole optimizer step: its micro-batches, each weighed by its share of the pairs.
    def training_step(self, model: Any, inputs: list[int], num_items_in_batch: Any = None) -> torch.Tensor:
        self._step_rows = inputs
        model.train()
        micro_batches = self._divide(inputs, self._budget)
        mine = micro_batches[self.args.process_index :: self.args.world_size]
        sums = torch.zeros(2, device=self.args.device)
        for number, rows in enumerate(mine, start=1):
            # Processes average their gradients, so each one's sum is scaled by their number.
            share = len(rows) / len(inputs) * self.args.world_size
            # Sharded gradients are summed up sharded: between the processes in every micro-batch.
            together = number == len(mine) or self.is_fsdp_enabled
            with contextlib.nullcontext() if together else self.accelerator.no_sync(model):
                loss, margin = self._loss_and_margin(model, rows or inputs[:1])
                self.accelerator.backward(loss * share)
            sums += torch.stack([loss.detach(), margin]) * share
        self._metrics["train"]["rewards/margins"].append(self.accelerator.reduce(sums[1], "mean").item())
        computed = [self._budget.num_tokens([self._tokens[row] for row in rows]) for rows in micro_batches if rows]
        self._metrics["train"]["num_computed_tokens"].append(sum(computed))
        return sums[0]

    def _divide(self, rows: list[int], budget: Budget) -> list[list[int]]:
        """The micro-batches of all processes, as many for each; in place of an empty one a process computes something
        that does not count, because the others wait for it."""
        micro_batches = divide([self._tokens[row] for row in rows], budget, multiple_of=self.args.world_size)
        return [[rows[i] for i in micro_batch] for micro_batch in micro_batches]

    def _loss_and_margin(self, model: Any, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Means over `rows`. The model runs once; the losses are computed from what it gave."""
        inputs = self._inputs(rows)
        with self.compute_loss_context_manager():
            output = self._forward(model, inputs)
        inputs.pop("layout", None)
        logps = PairLogps.of(output.log_probs, inputs)
        weight_B, label_B = (values[rows].to(self.args.device) for values in (self._weight_B, self._label_B))
        loss = torch.zeros((), device=self.args.device)
        with _alone(self.accelerator):
            if self.loss_types and self._plain:
                loss += self.compute_loss(lambda **_: output, inputs)
            elif self.loss_types:
                each_B = trl_losses(self.compute_loss, Replay(output, inputs), label_B=label_B)
                loss += (weight_B * each_B).mean()
        for own in self._own_losses:
            settings = own.model_dump(exclude={"kind", "weight"})
            if own.kind == "length_regularized":
                settings["beta"] = self.beta
            each_B = own_losses(own.kind, logps, label_B=None if self._plain else label_B, **settings)
            loss += own.weight * (weight_B * each_B).mean()
        self._metrics["train"].clear()  # what TRL counts weighs micro-batches alike
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss.item(), rows)
        return loss, self.beta * logps.margin_B.detach().mean()

    def _forward(self, model: Any, inputs: dict[str, Any]) -> Any:
        """TRL's own call of the model, packed when there is a layout."""
        call: dict[str, Any] = {
            name: inputs[name] for name in ("input_ids", "attention_mask", "layout") if name in inputs
        }
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        return forward.PackedForward(model)(**call, labels=labels, use_cache=False, fused_lm_head=True)

    def _inputs(self, rows: list[int]) -> dict[str, Any]:
        """What TRL's loss takes, and the layout when the rows are packed."""
        pairs = [self._tokens[row] for row in rows]
        inputs: dict[str, Any] = self.data_collator([pair.example for pair in pairs])
        if self.reference is not None:
            for name, values in zip(("ref_chosen_logps", "ref_rejected_logps"), self.reference, strict=True):
                inputs[name] = torch.tensor([values[row] for row in rows])
        if self._budget.shared_prefix:
            inputs["layout"] = lay_out_pairs(pairs)
        return self._prepare_inputs(inputs)  # type: ignore[no-any-return]

    def logps(self, rows: list[int], *, phase: str) -> tuple[list[float], list[float]]:
        """Summed log-probabilities (nats) of chosen and rejected, in the order of `rows`. Raises TrainingError."""
        found: dict[int, tuple[float, float]] = {}
        self.model_wrapped.eval()
        micro_batches = self._divide(rows, self._budget.larger(PASS_FACTOR)) if rows else []
        for micro_batch in micro_batches[self.args.process_index :: self.args.world_size]:
            with torch.no_grad(), self.accelerator.autocast():
                per_token = self._forward(self.model_wrapped, self._inputs(micro_batch or rows[:1])).log_probs
            sums = per_token.double().sum(1).reshape(2, -1).T.tolist()
            found.update(zip(micro_batch, map(tuple, sums), strict=False))
            self._report(phase, min(len(found) * self.args.world_size, len(rows)), len(rows))
        self.model_wrapped.train()
        if self.args.world_size > 1:
            found = dict(gather_object(list(found.items())))
        if broken := [row for row in rows if not all(map(math.isfinite, found[row]))]:
            raise TrainingError(
                f"{phase} pass: the log-probability is not a finite number for pairs {self._named(broken)}; "
                "finite numbers; the model's weights are broken, or the precision is too low: look at its checkpoint"
            )
        return [found[row][0] for row in rows], [found[row][1] for row in rows]

    # Called with the norm before clipping, before the optimizer's step.
    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        grad_norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if not math.isfinite(grad_norm):
            raise self._not_finite("gradient norm", float(grad_norm), self._step_rows)
        return grad_norm

    def _not_finite(self, what: str, value: float, rows: list[int]) -> TrainingError:
        return TrainingError(
            f"training step {self.state.global_step + 1}: the {what} is {value} on pairs {self._named(rows)}; a finite "
            "number; nothing was written: look at these pairs, and lower training.learning_rate or training.beta"
        )

    def _named(self, rows: list[int]) -> str:
        names = ", ".join(self.ids[row] for row in rows[:MOST_IDS_NAMED])
        return names if len(rows) <= MOST_IDS_NAMED else f"{names} and {len(rows) - MOST_IDS_NAMED} more"

    def on_main(self, make: Callable[[], Any]) -> Any:
        """What `make` returns in the main process, in all of them."""
        made = [make() if self.args.process_index == 0 else None]
        return broadcast_object_list(made)[0]

    def whole(self) -> tuple[PreTrainedModel, dict[str, torch.Tensor] | None]:
        """The trained model, with adapters merged; and its state when the weights are spread over processes."""
        model = self.accelerator.unwrap_model(self.model)
        if self.is_fsdp_enabled:
            return model, self.accelerator.get_state_dict(self.model_wrapped)
        return (model.merge_and_unload() if hasattr(model, "merge_and_unload") else model), None

    @property
    def seconds(self) -> float:
        """Seconds of optimization so far, those before a resume included."""
        return self._seconds_before + time.monotonic() - self._started

    def update(
        self, save: Path | None, seconds_before: float, *, reference: Callable[[], tuple[list[float], list[float]]]
    ) -> None:
        """Trains to the end, from the complete save `save` when there is one, which took `seconds_before`.

        `reference` is called when the model is ready, before the first step; it may ask for `logps`.
        """
        self._find_reference, self._seconds_before = reference, seconds_before
        self.train(resume_from_checkpoint=None if save is None else str(save))

    # The reference pass needs the model as it is trained: on its device, and sharded when it is.
    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:
        ready = super()._prepare_for_training(*args, **kwargs)
        self.reference = self._find_reference()
        self._started = time.monotonic()
        return ready

    # A save that a kill or a full disk cut short must not look like one; older ones go when the new one is complete.
    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"  # transformers' own name
        with saves.writing(folder):
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.process_index == 0:
                saves.mark_complete(folder, step=step, seconds=self.seconds)
                saves.remove_others(folder)

    # Nothing but a checkpoint is written, and nothing is sent anywhere.
    def create_model_card(self, *args: Any, **kwargs: Any) -> None: ...

    def _send_telemetry(self) -> None: ...


@contextlib.contextmanager
def _alone(accelerator: Any) -> Iterator[None]:
    """TRL gathers metrics in every loss, with tensors of one size from every process; ours differ, and are not used."""
    accelerator.gather = accelerator.gather_for_metrics = lambda tensor, *_, **__: tensor
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics
