"""Training on preference pairs, one optimizer step at a time.

A `Trainer` holds a model, its optimizer and its place in the learning-rate schedule, and takes a step on any batch of
pairs that it is given. So one that is opened for an iteration trains on all of its batches, and one that stays open
trains on block after block, as online DPO does: nothing is started or written between blocks.

A batch is one optimizer step, in every process. Each process divides it alike into micro-batches and computes its share
of them, so the gradient is the mean over the pairs whatever the packing and the number of processes.
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
from selfreward.updates.adapters import merged, with_adapters
from selfreward.updates.batches import Batch, PairBlock
from selfreward.updates.losses import OWN, PairLogps, Replay, own_losses, trl_losses
from selfreward.updates.optimizers import load_optimizer_state, optimizer_of
from selfreward.updates.packing import attention, forward, support
from selfreward.updates.packing.layout import lay_out_pairs
from selfreward.updates.packing.micro_batches import Budget, divide
from selfreward.updates.packing.rectangle import labels_of, rectangle
from selfreward.updates.processes import accelerator_of
from selfreward.updates.progress import Report, silent
from selfreward.updates.schedules import learning_rate
from selfreward.updates.settings import Settings
from selfreward.updates.trl_loss import TrlPairLoss, add_fused_lm_head

MOST_IDS_NAMED = 32
PASS_FACTOR = 4  # a pass keeps no gradients, so its micro-batches may be larger
STATE = "state.pt"

Logps = tuple[Sequence[float], Sequence[float]]
"""Summed log-probabilities (nats) of the chosen and of the rejected responses, one of each for every pair."""


@dataclass(frozen=True)
class Step:
    """One optimizer step, numbered from 1.

    `loss` and `reward_margin` (beta times nats) are means over its pairs, computed before the step; `grad_norm` is that
    before clipping; `num_computed_tokens` is what the model computed, padding included.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    reward_margin: float
    num_computed_tokens: int


class Trainer:
    """Open for any number of blocks. `steps` are those taken so far, of the `num_steps` that the schedule spans.

    Packing is proved on the pairs of `first`, the first block. `seed`: of the weights of adapters. Raises RecipeError
    when the model cannot be packed.
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
        self.num_steps, self.steps = num_steps, list[Step]()
        self._budget = Budget(section.micro_batch_tokens, section.micro_batch_size, section.packing == "shared_prefix")
        self.sharding = settings.launch.sharding
        self._sharded = self.sharding == "fsdp"
        self.accelerator = accelerator_of(settings.launch)
        self._device, self._config = self.accelerator.device, model.config
        self._report = report if self.accelerator.is_main_process else silent
        model = _fitted(model, settings, first, seed=seed, device=None if self._sharded else self._device)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer_of(section, model))
        theirs = [loss for loss in section.losses if loss.kind not in OWN]
        self._own_losses = [loss for loss in section.losses if loss.kind in OWN]
        self._trl_loss = TrlPairLoss(
            [loss.kind for loss in theirs],
            weights=[loss.weight for loss in theirs],
            beta=section.beta,
            label_smoothing=max(settings.label_smoothings, default=0.0),
            device=self._device,
        )

    def step(self, pairs: PairBlock, reference: Logps, batch: Batch) -> Step:
        """One optimizer step on the pairs `batch` of the block. Raises TrainingError for numbers that are not finite.

        `reference`: the log-probabilities of all pairs of the block under the reference.
        """
        if self._budget.shared_prefix:
            support.check_configuration(self._config, longest=pairs.num_longest_tokens)
        self.model.train()
        rate = learning_rate(self.section, len(self.steps), num_steps=self.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        micro_batches = self._divide(pairs, batch, self._budget)
        loss, margin = self._add_gradients(pairs, reference, batch, micro_batches)
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.section.max_grad_norm)
        grad_norm = float(norm.full_tensor() if isinstance(norm, DTensor) else norm)
        if not math.isfinite(grad_norm):
            raise self._not_finite("gradient norm", grad_norm, pairs, batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        num_tokens = sum(self._budget.num_tokens([pairs.tokens[i] for i in some]) for some in micro_batches if some)
        self.steps.append(Step(len(self.steps) + 1, loss, grad_norm, rate, margin, num_tokens))
        self._report("update", len(self.steps), self.num_steps)
        return self.steps[-1]

    def _add_gradients(
        self, pairs: PairBlock, reference: Logps, batch: Batch, micro_batches: list[Batch]
    ) -> tuple[float, float]:
        """The gradient of the mean loss over `batch`; returns that loss and the mean reward margin."""
        mine = micro_batches[self.accelerator.process_index :: self.accelerator.num_processes]
        sums = torch.zeros(2, device=self._device)
        for number, some in enumerate(mine, start=1):
            # Processes average their gradients, so each one's sum is scaled by their number.
            share = len(some) / len(batch) * self.accelerator.num_processes
            # Sharded gradients are summed up sharded: between the processes in every micro-batch.
            together = number == len(mine) or self._sharded
            with contextlib.nullcontext() if together else self.accelerator.no_sync(self.model):
                loss, margin = self._loss_and_margin(pairs, reference, some or batch[:1])
                self.accelerator.backward(loss * share)
            sums += torch.stack([loss.detach(), margin]) * share
        loss_mean, margin_mean = self.accelerator.reduce(sums, "mean").tolist()
        return loss_mean, margin_mean

    def _divide(self, pairs: PairBlock, batch: Batch, budget: Budget) -> list[Batch]:
        """The micro-batches of all processes, as many for each; in place of an empty one a process computes something
        that does not count, because the others wait for it."""
        multiple = self.accelerator.num_processes
        micro_batches = divide([pairs.tokens[i] for i in batch], budget, multiple_of=multiple)
        return [[batch[i] for i in micro_batch] for micro_batch in micro_batches]

    def _loss_and_margin(self, pairs: PairBlock, reference: Logps, batch: Batch) -> tuple[Tensor, Tensor]:
        """Means over `batch`. The model runs once; the losses are computed from what it gave."""
        inputs = self._inputs(pairs, batch)
        output = self._forward(inputs)
        inputs.pop("layout", None)
        for name, values in zip(("ref_chosen_logps", "ref_rejected_logps"), reference, strict=True):
            inputs[name] = torch.tensor([values[i] for i in batch]).to(self._device)
        logps = PairLogps.of(output.log_probs, inputs)
        weight_B, label_B = (values[batch].to(self._device) for values in (pairs.weight_B, pairs.label_B))
        plain = pairs.is_plain
        loss = torch.zeros((), device=self._device)
        if self._trl_loss.loss_types and plain:
            loss += self._trl_loss(lambda **_: output, inputs)
        elif self._trl_loss.loss_types:
            each_B = trl_losses(self._trl_loss, Replay(output, inputs), label_B=label_B)
            loss += (weight_B * each_B).mean()
        for own in self._own_losses:
            settings = own.model_dump(exclude={"kind", "weight"})
            if own.kind == "length_regularized":
                settings["beta"] = self.section.beta
            each_B = own_losses(own.kind, logps, label_B=None if plain else label_B, **settings)
            loss += own.weight * (weight_B * each_B).mean()
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss.item(), pairs, batch)
        return loss, self.section.beta * logps.margin_B.detach().mean()

    def _inputs(self, pairs: PairBlock, batch: Batch) -> dict[str, Any]:
        """What the model and TRL's losses take, and the layout when the pairs are packed."""
        tokens = [pairs.tokens[i] for i in batch]
        inputs: dict[str, Any] = {name: values.to(self._device) for name, values in rectangle(tokens).items()}
        if self._budget.shared_prefix:
            inputs["layout"] = lay_out_pairs(tokens)
        return inputs

    def _forward(self, inputs: dict[str, Any]) -> Any:
        """TRL's own call of the model, packed when there is a layout; `log_probs` of what it gives is (2B, T - 1)."""
        call = {name: value for name, value in inputs.items() if name != "completion_mask"}
        model = forward.PackedForward(self.model)
        return model(**call, labels=labels_of(inputs), use_cache=False, fused_lm_head=True)

    def logps(self, pairs: PairBlock, rows: Sequence[int], *, phase: str) -> tuple[list[float], list[float]]:
        """Summed log-probabilities (nats) of chosen and rejected, in the order of `rows`. Raises TrainingError.

        `rows` are indices of pairs, `phase` names the pass in reports and errors.
        """
        found: dict[int, tuple[float, float]] = {}
        num_processes = self.accelerator.num_processes
        self.model.eval()
        micro_batches = self._divide(pairs, [*rows], self._budget.larger(PASS_FACTOR)) if rows else []
        for some in micro_batches[self.accelerator.process_index :: num_processes]:
            with torch.no_grad(), self.accelerator.autocast():
                per_token = self._forward(self._inputs(pairs, some or [rows[0]])).log_probs
            sums = per_token.double().sum(1).reshape(2, -1).T.tolist()
            found.update(zip(some, map(tuple, sums), strict=False))
            self._report(phase, min(len(found) * num_processes, len(rows)), len(rows))
        self.model.train()
        if num_processes > 1:
            found = dict(gather_object(list(found.items())))
        if broken := [row for row in rows if not all(map(math.isfinite, found[row]))]:
            raise TrainingError(
                f"{phase} pass: the log-probability is not a finite number for pairs {_named(pairs, broken)}; "
                "finite numbers; the model's weights are broken, or the precision is too low: look at its checkpoint"
            )
        return [found[row][0] for row in rows], [found[row][1] for row in rows]

    def _not_finite(self, what: str, value: float, pairs: PairBlock, batch: Batch) -> TrainingError:
        return TrainingError(
            f"training step {len(self.steps) + 1}: the {what} is {value} on pairs {_named(pairs, batch)}; a finite "
            "number; nothing was written: look at these pairs, and lower training.learning_rate or training.beta"
        )

    def whole(self) -> tuple[PreTrainedModel, dict[str, Tensor] | None]:
        """The model as it is now, with adapters merged; and its state when the weights are sharded. Training may be
        continued afterwards: what is returned shares weights with it unless there are adapters."""
        model = self.accelerator.unwrap_model(self.model)
        if self._sharded:
            return model, self.accelerator.get_state_dict(self.model)
        return merged(model), None

    def save_state(self, folder: Path) -> None:
        """All that `load_state` needs, as one file in `folder`; every process calls it, and the main one writes."""
        if self._sharded:
            options = StateDictOptions(full_state_dict=True, cpu_offload=True)
            weights, optimizer = get_state_dict(self.model, self.optimizer.optimizer, options=options)
            state = {"weights": weights, "optimizer": optimizer}
        else:
            state = {"weights": self._trained_weights(), "optimizer": self.optimizer.state_dict()}
        if self.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state | {"steps": [asdict(step) for step in self.steps]}, folder / STATE)
        self.accelerator.wait_for_everyone()

    def load_state(self, folder: Path) -> None:
        """Makes the next step the one that would have followed `save_state`, to the bit."""
        # Mapped when it is sharded: each process reads its own part, and they share what the system has read.
        state = torch.load(folder / STATE, map_location="cpu", weights_only=True, mmap=self._sharded)
        self.steps = [Step(**step) for step in state["steps"]]
        if self._sharded:
            set_state_dict(
                self.model,
                self.optimizer.optimizer,
                model_state_dict=state["weights"],
                optim_state_dict=state["optimizer"],
                options=StateDictOptions(full_state_dict=True),
            )
            return
        with torch.no_grad():
            for name, weights in self._trained_weights().items():
                weights.copy_(state["weights"][name])
        load_optimizer_state(self.optimizer, state["optimizer"])

    def _trained_weights(self) -> dict[str, Tensor]:
        """By name; weights that two layers share have one."""
        model = self.accelerator.unwrap_model(self.model)
        return {name: weights.data for name, weights in model.named_parameters() if weights.requires_grad}

    def close(self) -> None:
        """Lets go of the model and the optimizer's state."""
        self.accelerator.free_memory()
        del self.model, self.optimizer


def _fitted(
    model: PreTrainedModel, settings: Settings, first: PairBlock, *, seed: int, device: torch.device | None
) -> PreTrainedModel:
    """`model` with packed attention, TRL's head, checkpointed layers and adapters, as far as they are asked for.

    On `device`; None leaves it where it is, because a model that will be sharded may be too large for one device.
    """
    section = settings.training
    packed = section.packing == "shared_prefix"
    if packed:
        support.check_configuration(model.config, longest=first.num_longest_tokens)
        model.set_attn_implementation(attention.NAME)
        forward.install(model)
    add_fused_lm_head(model)
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if settings.lora is not None:
        model = with_adapters(model, settings.lora, seed=seed)
    if device is not None:
        model.to(device)
    if packed:
        # The longest too: what goes wrong beyond a window is not seen on short pairs.
        by_length = sorted(first.tokens, key=lambda pair: max(map(len, pair.rows)))
        support.prove(model, [by_length[0], by_length[-1]], device=next(model.parameters()).device)
    return model


def _named(pairs: PairBlock, rows: Sequence[int]) -> str:
    names = ", ".join(pairs.ids[row] for row in rows[:MOST_IDS_NAMED])
    return names if len(rows) <= MOST_IDS_NAMED else f"{names} and {len(rows) - MOST_IDS_NAMED} more"
