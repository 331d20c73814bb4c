"""Training on preference pairs, one optimizer step at a time.

A `Trainer` owns a model, its optimizer and its position in the learning-rate schedule, and takes a step on any batch
of pairs. A trainer that is opened for one iteration trains on all batches of that iteration; one that stays open trains
on block after block, as in online DPO. Nothing is started or written between blocks.

A batch is one optimizer step, in every process. All processes divide it into the same micro-batches and each computes
its share of them, so the gradient is the mean over the pairs for any packing and any number of processes.
"""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from selfreward.errors import TrainingError
from selfreward.updates.adapters import adapters_of, add_adapters, merged
from selfreward.updates.batches import Batch, PairBlock
from selfreward.updates.budgets import Budgets, budgets_of
from selfreward.updates.losses import PairLogps, mean_loss
from selfreward.updates.optimizers import load_optimizer_state, optimizer_of, set_rate
from selfreward.updates.packing import attention, forward, support
from selfreward.updates.packing.layout import lay_out_pairs
from selfreward.updates.packing.micro_batches import Budget, divide
from selfreward.updates.packing.padded_batch import padded_batch
from selfreward.updates.processes import distribute, make_accelerator, reshard
from selfreward.updates.progress import Report, silent
from selfreward.updates.recomputed_layers import recompute_layers
from selfreward.updates.schedules import learning_rate
from selfreward.updates.settings import Settings
from selfreward.updates.stochastic_rounding import seeded

MAX_NAMED_IDS = 32
STATE = "state.pt"

Logps = tuple[Sequence[float], Sequence[float]]
"""Summed log-probabilities (nats) of the chosen and of the rejected responses, one each per pair."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, numbered from 1.

    `loss` and `reward_margin` (beta times nats) are means over its pairs, computed before the step; `grad_norm` is the
    norm before clipping; `num_computed_tokens` counts the tokens that the model computed, padding included.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    reward_margin: float
    num_computed_tokens: int


class Trainer:
    """A trainer for any number of blocks. `steps` are the steps taken so far; the schedule spans `num_steps`.

    Packing is verified on pairs of `first`, the first block. `seed` seeds the weights of adapters and the rounding of
    bfloat16 weights. Raises RecipeError when the model cannot be packed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        settings: Settings,
        first: PairBlock,
        num_steps: int,
        seed: int,
        report: Report = silent,
    ) -> None:
        section = self.section = settings.training
        self.num_steps, self.steps, self._seed = num_steps, list[Step](), seed
        self._packed = section.packing == "shared_prefix"
        self._has_adapters, self._trust_remote_code = settings.lora is not None, settings.trust_remote_code
        self.sharding, self._sharded = settings.launch.sharding, settings.launch.is_sharded
        self.accelerator = make_accelerator(settings.launch)
        self._device, self._config = self.accelerator.device, model.config
        self._report = report if self.accelerator.is_main_process else silent
        self.budgets = self._agreed(budgets_of(settings, model.config, device=self._device))
        model = self._configured(model, settings, first, seed=seed)
        self.model = distribute(model, self.accelerator, is_sharded=self._sharded)
        self.optimizer = optimizer_of(section, self.model)
        if self._packed:
            self._verify_packing(first)

    def _verify_packing(self, first: PairBlock) -> None:
        """Verify packing on the model as it will train: on its device, in its precision, sharded over the processes."""
        # The longest pair too: an error beyond a sliding window does not show on short pairs.
        by_length = sorted(first.tokens, key=lambda pair: max(map(len, pair.rows)))
        model = self.accelerator.unwrap_model(self.model)
        dtype = torch.bfloat16 if self.accelerator.mixed_precision == "bf16" else model.dtype
        with self.accelerator.autocast():
            support.verify(model, [by_length[0], by_length[-1]], device=self._device, dtype=dtype)
        reshard(model)

    def _configured(
        self, model: PreTrainedModel, settings: Settings, first: PairBlock, *, seed: int
    ) -> PreTrainedModel:
        """Return `model` with packed attention, TRL's head, gradient checkpointing and adapters, as the settings ask.

        A model that will be sharded stays where it is, because it may not fit on one device.
        """
        section = settings.training
        if self._packed:
            support.check_configuration(model.config, longest=first.longest_row_tokens)
            is_16_bit = self.accelerator.mixed_precision != "no" or model.dtype.itemsize == 2
            kernel = attention.kernel_for(
                section.packed_attention,
                device=self._device,
                is_16_bit=is_16_bit,
                head_sizes=attention.head_sizes(model.config),
            )
            model.set_attn_implementation(attention.implementation(kernel))
            forward.install(model)
        forward.add_fused_lm_head(model)
        recompute_layers(model, section.gradient_checkpointing)
        if settings.lora is not None:
            model = add_adapters(model, settings.lora, seed=seed)
        return model if self._sharded else model.to(self._device)

    def step(self, pairs: PairBlock, reference: Logps, batch: Batch) -> Step:
        """Take one optimizer step on the pairs `batch` of the block.

        `reference` has the log-probabilities of all pairs of the block under the reference. Raises TrainingError when
        the loss or the gradient norm is not finite.
        """
        if self._packed:
            support.check_configuration(self._config, longest=pairs.longest_row_tokens)
        if len(self.steps) >= self.num_steps and self.section.lr_scheduler in ("linear", "cosine"):
            raise TrainingError(
                f"training step {len(self.steps) + 1}: the schedule {self.section.lr_scheduler} spans {self.num_steps} "
                "steps; open the trainer with all steps that it will take, or use a constant learning rate"
            )
        self.model.train()
        rate = learning_rate(self.section, len(self.steps), num_steps=self.num_steps)
        set_rate(self.optimizer, rate)
        loss, margin, num_tokens = self._gradients(pairs, reference, batch)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.section.max_grad_norm)
        grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(grad_norm):
            raise self._not_finite("gradient norm", grad_norm, pairs, batch)
        with seeded(self._seed, len(self.steps) + 1, self._device):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self.steps.append(Step(len(self.steps) + 1, loss, grad_norm, rate, margin, num_tokens))
        measured = {"loss": loss, "reward_margin": margin, "learning_rate": rate}
        self._report("update", len(self.steps), self.num_steps, measured)
        return self.steps[-1]

    def _gradients(self, pairs: PairBlock, reference: Logps, batch: Batch) -> tuple[float, float, int]:
        """Compute the gradient; return loss, margin and the number of tokens computed.

        Where `micro_batch_tokens: auto` has taken too much of one device's memory, the step begins again with half. So
        do passes without gradients (`logps`).
        """
        while True:
            budget = self.budgets.step
            micro_batches = self._divide(pairs, batch, budget)
            found = None
            try:
                found = self._add_gradients(pairs, reference, batch, micro_batches)
            except torch.OutOfMemoryError:
                if not self._may_halve(micro_batches):
                    raise
            if found is None:  # here the exception, which refers to the activations, is gone
                self._halve(f"before step {len(self.steps) + 1}")
                continue
            tokens = (budget.num_tokens([pairs.tokens[i] for i in rows]) for rows in micro_batches if rows)
            return *found, sum(tokens)

    def _may_halve(self, micro_batches: list[Batch]) -> bool:
        is_alone = self.accelerator.num_processes == 1  # others would wait for a process that begins again
        return self.section.micro_batch_tokens == "auto" and is_alone and max(map(len, micro_batches)) > 1

    def _halve(self, when: str) -> None:
        """Free what the failed computation has taken, and continue with micro-batches of half the tokens."""
        self.optimizer.zero_grad()
        torch.cuda.empty_cache()
        self.budgets = self.budgets.halved(f"halved {when}: the memory did not suffice")

    def _agreed(self, budgets: Budgets) -> Budgets:
        """Return the budgets of the process with the least memory: all divide a step into the same micro-batches."""
        if self.accelerator.num_processes == 1 or budgets.step.max_tokens is None:
            return budgets
        everywhere: list[Budgets] = gather_object([budgets])
        return min(everywhere, key=lambda one: one.step.max_tokens or 0)

    def _add_gradients(
        self, pairs: PairBlock, reference: Logps, batch: Batch, micro_batches: list[Batch]
    ) -> tuple[float, float]:
        """Accumulate the gradient of the mean loss over `batch`; return that loss and the mean reward margin."""
        local = micro_batches[self.accelerator.process_index :: self.accelerator.num_processes]
        sums = torch.zeros(2, device=self._device)
        for number, rows in enumerate(local, start=1):
            # Gradients are averaged over processes, so each process scales its sum by the number of processes.
            share = len(rows) / len(batch) * self.accelerator.num_processes
            # Sharded gradients are reduced over the processes in every micro-batch.
            is_synchronised = number == len(local) or self._sharded
            with contextlib.nullcontext() if is_synchronised else self.accelerator.no_sync(self.model):
                loss, margin = self._loss_and_margin(pairs, reference, rows or batch[:1])
                self.accelerator.backward(loss * share)
            sums += torch.stack([loss.detach(), margin]) * share
        loss_mean, margin_mean = self.accelerator.reduce(sums, "mean").tolist()
        return loss_mean, margin_mean

    def _divide(self, pairs: PairBlock, batch: Batch, budget: Budget) -> list[Batch]:
        """Return the micro-batches of all processes, the same number for each.

        For an empty micro-batch, a process computes a pair whose loss is not counted, because the others wait for it.
        """
        multiple = self.accelerator.num_processes
        micro_batches = divide([pairs.tokens[i] for i in batch], budget, multiple_of=multiple)
        return [[batch[i] for i in micro_batch] for micro_batch in micro_batches]

    def _loss_and_margin(self, pairs: PairBlock, reference: Logps, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss and reward margin over `batch`. The model runs once; all losses use its output."""
        inputs = self._inputs(pairs, batch)
        logps_BT = self._forward(inputs)
        for name, values in zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True):
            inputs[name] = torch.tensor([values[i] for i in batch]).to(self._device)
        logps = PairLogps.of(logps_BT, inputs)
        weight_B, label_B = (values[batch].to(self._device) for values in (pairs.weight_B, pairs.label_B))
        soft_B = None if pairs.is_plain else label_B
        beta, losses = self.section.beta, self.section.losses
        loss = torch.stack([mean_loss(x, logps, beta=beta, weight_B=weight_B, label_B=soft_B) for x in losses]).sum()
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss.item(), pairs, batch)
        return loss, self.section.beta * logps.margin_B.detach().mean()

    def _inputs(self, pairs: PairBlock, batch: Batch) -> dict[str, Any]:
        """Return the padded batch, with the layout when the pairs are packed."""
        tokens = [pairs.tokens[i] for i in batch]
        inputs: dict[str, Any] = {name: values.to(self._device) for name, values in padded_batch(tokens).items()}
        if self._packed:
            inputs["layout"] = lay_out_pairs(tokens)
        return inputs

    def _forward(self, inputs: dict[str, Any]) -> Tensor:
        """Return the log-probabilities of the labels, (2B, T - 1); the model computes them packed if it is packed."""
        with self.accelerator.autocast():  # accelerate gives a sharded model none of its own
            return forward.label_logps(self.model, inputs)

    def logps(self, pairs: PairBlock, rows: Sequence[int], *, phase: str) -> tuple[list[float], list[float]]:
        """Return the summed log-probabilities (nats) of chosen and rejected responses, in the order of `rows`.

        `rows` are indices of pairs; `phase` names the pass in progress reports and errors. Raises TrainingError when a
        log-probability is not finite.
        """
        found: dict[int, tuple[float, float]] = {}
        self.model.eval()
        while not self._add_logps(found, pairs, rows, phase=phase):
            self._halve(f"in the {phase} pass")
        self.model.train()
        reshard(self.model)
        if self.accelerator.num_processes > 1:
            found = dict(gather_object(list(found.items())))
        if broken := [row for row in rows if not all(map(math.isfinite, found[row]))]:
            raise TrainingError(
                f"{phase} pass: the log-probability is not a finite number for pairs {_list_ids(pairs, broken)}; it "
                "must be finite; the model's weights are broken, or the precision is too low: look at its checkpoint"
            )
        return [found[row][0] for row in rows], [found[row][1] for row in rows]

    @torch.no_grad()
    def _add_logps(
        self, found: dict[int, tuple[float, float]], pairs: PairBlock, rows: Sequence[int], *, phase: str
    ) -> bool:
        """Compute this process's share of the rows that `found` lacks; return False when the memory did not suffice."""
        missing, num_processes = [row for row in rows if row not in found], self.accelerator.num_processes
        micro_batches = self._divide(pairs, missing, self.budgets.forward) if missing else []
        try:
            for part in micro_batches[self.accelerator.process_index :: num_processes]:
                per_token = self._forward(self._inputs(pairs, part or [rows[0]]))
                sums = per_token.double().sum(1).reshape(2, -1).T.tolist()
                found.update(zip(part, map(tuple, sums), strict=False))
                self._report(phase, min(len(found) * num_processes, len(rows)), len(rows), {})
        except torch.OutOfMemoryError:
            if not self._may_halve(micro_batches):
                raise
            return False
        return True

    def _not_finite(self, quantity: str, value: float, pairs: PairBlock, batch: Batch) -> TrainingError:
        return TrainingError(
            f"training step {len(self.steps) + 1}: the {quantity} is {value} on pairs {_list_ids(pairs, batch)}; it "
            "must be finite; nothing was written: look at these pairs, and lower training.learning_rate or "
            "training.beta"
        )

    def full_model(self, folder: Path) -> tuple[PreTrainedModel, dict[str, Tensor] | None]:
        """Return the current model and, if the weights are sharded, its state dict (else None).

        `folder` is that of the policy: adapters are merged into the weights that are stored there. All processes call
        this, and only the main one gets complete weights. Training may continue afterwards. Without adapters, the
        returned model shares its weights with the trainer.
        """
        model = self.accelerator.unwrap_model(self.model)
        if self._has_adapters:
            adapters = adapters_of(model)
            if self.accelerator.is_main_process:
                dtype = getattr(torch, self.section.weights_dtype)
                model = merged(adapters, folder, dtype=dtype, trust_remote_code=self._trust_remote_code)
            return model, None
        return model, self.accelerator.get_state_dict(self.model) if self._sharded else None

    def save_state(self, folder: Path) -> None:
        """Write everything that `load_state` needs as one file in `folder`.

        All processes call this; only the main process writes.
        """
        if self._sharded:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=self._has_adapters)
            weights, optimizer = get_state_dict(self.model, self.optimizer, options=options)
            state = {"weights": weights, "optimizer": optimizer}
        else:
            state = {"weights": self._trained_weights(), "optimizer": self.optimizer.state_dict()}
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state | {"steps": [asdict(step) for step in self.steps]}, folder / STATE)
        self.accelerator.wait_for_everyone()

    def load_state(self, folder: Path) -> None:
        """Restore the state, so that the next step is bit for bit the step that would have followed `save_state`."""
        # A sharded state is memory-mapped: each process reads its own part, and they share the page cache.
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=self._sharded)
        self.steps = [Step(**step) for step in state["steps"]]
        if self._sharded:
            set_state_dict(
                self.model,
                self.optimizer,
                model_state_dict=state["weights"],
                optim_state_dict=state["optimizer"],
                # Frozen weights are not saved.
                options=StateDictOptions(full_state_dict=True, strict=not self._has_adapters),
            )
            return
        with torch.no_grad():
            for name, weights in self._trained_weights().items():
                weights.copy_(state["weights"][name])
        load_optimizer_state(self.optimizer, state["optimizer"])

    def _trained_weights(self) -> dict[str, Tensor]:
        """Return the trained weights by name; tied weights appear once."""
        model = self.accelerator.unwrap_model(self.model)
        return {name: weights.data for name, weights in model.named_parameters() if weights.requires_grad}

    def close(self) -> None:
        """Release the model and the optimizer's state."""
        self.accelerator.free_memory()
        del self.model, self.optimizer


def _list_ids(pairs: PairBlock, rows: Sequence[int]) -> str:
    names = ", ".join(pairs.ids[row] for row in rows[:MAX_NAMED_IDS])
    return names if len(rows) <= MAX_NAMED_IDS else f"{names} and {len(rows) - MAX_NAMED_IDS} more"
