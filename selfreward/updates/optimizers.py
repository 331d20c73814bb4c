"""Optimizers by name.

`adamw`: AdamW (1711.05101), torch's fused implementation, with transformers' defaults (betas 0.9 and 0.999, epsilon
1e-8).
`adafactor`: Adafactor (1804.04235), which Online DPO (2402.04792) uses. It stores one number per row and column of a
matrix instead of two per weight. This is transformers' implementation with the learning rate of the schedule alone, as
its Trainer sets it: without the paper's relative step size (section 8) and without scaling by parameter size.
`adamw_8bit`: bitsandbytes' AdamW with blockwise 8-bit moments (2110.02861). The moments of embeddings stay at 32 bits,
as section 2.3 of the paper recommends, and so do those of parameters with fewer than 4096 elements. 2.03 bytes per
weight instead of 8.
`adamw_offload`: bitsandbytes' AdamW with moments of 32 bits in unified memory: the driver moves them to the GPU while
they are used, and to host memory when the GPU is short of its own (2305.14314, section 3, paged optimizers).
On bfloat16 weights, `adamw` and `adamw_8bit` round at random (`stochastic_rounding.py`) unless the recipe says not to.
"""

from typing import Any

import torch
from torch import nn
from transformers.trainer_pt_utils import get_parameter_names

from selfreward.recipe import TrainingSection
from selfreward.updates.stochastic_rounding import BETAS, EPSILON, rounding_adamw

# Biases and normalisation gains have no weight decay; the patterns are those of transformers' Trainer.
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
MOMENTS = ("state1", "state2")  # bitsandbytes' names


def optimizer_of(section: TrainingSection, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the trainable parameters of `model`.

    Raises ImportError when the package of the selected optimizer is not installed.
    """
    groups, rate = _groups(model, section.weight_decay), section.learning_rate
    optimizer = section.optimizer
    if rounds_at_random(section, model) and (optimizer == "adamw" or optimizer == "adamw_8bit"):
        return rounding_adamw(groups, rate, is_8_bit=optimizer == "adamw_8bit", embeddings=_embeddings(model))
    match optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=BETAS, eps=EPSILON, fused=True)
        case "adafactor":
            from transformers.optimization import Adafactor

            adafactor: torch.optim.Optimizer = Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
            return adafactor
        case "adamw_8bit":
            return _adamw_8bit(groups, rate, model)
        case "adamw_offload":
            from bitsandbytes.optim import PagedAdamW

            paged: torch.optim.Optimizer = PagedAdamW(groups, lr=rate, betas=BETAS, eps=EPSILON)
            return paged


def rounds_at_random(section: TrainingSection, model: nn.Module) -> bool:
    """Return whether trained weights are bfloat16, which adapters never are, and are to be rounded at random."""
    return section.stochastic_rounding and any(w.dtype is torch.bfloat16 for w in model.parameters() if w.requires_grad)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decaying = set(get_parameter_names(model, [nn.LayerNorm], NO_DECAY))
    trained = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
    return [
        {"params": [weights for name, weights in trained if name in decaying], "weight_decay": weight_decay},
        {"params": [weights for name, weights in trained if name not in decaying], "weight_decay": 0.0},
    ]


def _embeddings(model: nn.Module) -> set[int]:
    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def _adamw_8bit(groups: list[dict[str, Any]], rate: float, model: nn.Module) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    embeddings = _embeddings(model)

    class With32BitEmbeddings(AdamW8bit):  # type: ignore[misc]  # bitsandbytes' own overrides are global to a process
        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return config | {"optim_bits": 32} if id(group["params"][pindex]) in embeddings else config

    optimizer: torch.optim.Optimizer = With32BitEmbeddings(groups, lr=rate, betas=BETAS, eps=EPSILON)
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all groups. A compiled step has it in a tensor, so that it is not compiled again."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Restore the state bit for bit: torch casts it to the dtype of the weights, but Adafactor's state is float32."""
    if getattr(optimizer, "is_paged", False):
        _load_paged_state(optimizer, saved)
        return
    optimizer.load_state_dict(saved)
    parameters = [weights for group in optimizer.param_groups for weights in group["params"]]
    for index, state in saved["state"].items():
        loaded = optimizer.state[parameters[index]]
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dtype != loaded[name].dtype:
                loaded[name] = value.to(loaded[name].device)


def _load_paged_state(optimizer: Any, saved: dict[str, Any]) -> None:
    """Copy the moments into new unified memory; bitsandbytes would move them to the GPU, where they may not fit."""
    optimizer.load_state_dict(saved, move_to_device=False)
    for weights, state in optimizer.state.items():
        for name in MOMENTS:
            buffer = optimizer.get_state_buffer(weights, dtype=state[name].dtype)
            state[name] = buffer.copy_(state[name])
