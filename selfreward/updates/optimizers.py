"""Optimizers by name.

`adamw`: AdamW (1711.05101), torch's fused one, with transformers' defaults (betas 0.9 and 0.999, epsilon 1e-8).
`adafactor`: Adafactor (1804.04235), which Online DPO (2402.04792) trains with. It keeps one number for each row and
column of a matrix instead of two for each weight. transformers' own, with the learning rate of the schedule alone, as
its Trainer sets it: without the paper's relative step size (section 8) and scaling by the size of a parameter.
`adamw_8bit`: bitsandbytes' AdamW with moments of 8 bits, in blocks (2110.02861). Embeddings keep 32 bits, as section
2.3 of the paper advises, and so do parameters of fewer than 4096 numbers. 2.03 bytes a weight instead of 8.
"""

from typing import Any

import torch
from torch import nn
from transformers.trainer_pt_utils import get_parameter_names

from selfreward.recipe import TrainingSection

# Neither biases nor the gains of normalisation decay; the names are those of transformers' Trainer.
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def optimizer_of(section: TrainingSection, model: nn.Module) -> torch.optim.Optimizer:
    """For the parameters of `model` that are trained. Raises ImportError without the package of `adamw_8bit`."""
    groups, rate = _groups(model, section.weight_decay), section.learning_rate
    match section.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8, fused=True)
        case "adafactor":
            from transformers.optimization import Adafactor

            adafactor: torch.optim.Optimizer = Adafactor(groups, lr=rate, scale_parameter=False, relative_step=False)
            return adafactor
        case "adamw_8bit":
            return _adamw_8bit(groups, rate, model)


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    decaying = set(get_parameter_names(model, [nn.LayerNorm], NO_DECAY))
    trained = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
    return [
        {"params": [weights for name, weights in trained if name in decaying], "weight_decay": weight_decay},
        {"params": [weights for name, weights in trained if name not in decaying], "weight_decay": 0.0},
    ]


def _adamw_8bit(groups: list[dict[str, Any]], rate: float, model: nn.Module) -> torch.optim.Optimizer:
    from bitsandbytes.optim import AdamW8bit

    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}

    class WithWholeEmbeddings(AdamW8bit):  # type: ignore[misc]  # bitsandbytes' own overrides are global to a process
        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            config: dict[str, Any] = super().get_config(gindex, pindex, group)
            return config | {"optim_bits": 32} if id(group["params"][pindex]) in embeddings else config

    optimizer: torch.optim.Optimizer = WithWholeEmbeddings(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8)
    return optimizer


def load_optimizer_state(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """To the bit: torch rounds what it loads to the type of the weights, and Adafactor keeps float32 for bfloat16."""
    optimizer.load_state_dict(saved)
    parameters = [weights for group in optimizer.param_groups for weights in group["params"]]
    for index, state in saved["state"].items():
        loaded = optimizer.state[parameters[index]]
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.dtype != loaded[name].dtype:
                loaded[name] = value.to(loaded[name].device)
