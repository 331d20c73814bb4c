"""Log-probabilities of a batch's labels by a model with TRL's fused head, packed or padded.

Only positions with a label reach the output layer, on every device. This is the only file that imports TRL: its head
computes log-probabilities tile by tile without the logits.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from selfreward.updates.packing.flex import BLOCK
from selfreward.updates.packing.layout import Layout
from selfreward.updates.packing.padded_batch import labels_of

__all__ = ["add_fused_lm_head", "install", "label_logps"]


def label_logps(model: torch.nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Return the log-probability of each label of a padded batch, (2B, T - 1), and 0 where there is none.

    `inputs` are those of `padded_batch`; with a `layout` of the same rows the model computes that. `model` is the
    trained model, possibly wrapped, with TRL's head, and for layouts with `install`ed hook.
    """
    layout: Layout | None = inputs.get("layout")
    if layout is None:
        padded = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        found: torch.Tensor = model(**padded, labels=labels_of(inputs), use_cache=False, fused_lm_head=True).log_probs
        return found
    device = inputs["input_ids"].device
    log_prob_L = _packed_logps(model, layout, device)
    log_prob_L = torch.cat([log_prob_L, log_prob_L.new_zeros(1)])  # the last entry is for positions without a label
    return log_prob_L[torch.from_numpy(layout.slot_BR).to(device)]


def _packed_logps(model: torch.nn.Module, layout: Layout, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        layout = layout.padded(BLOCK)  # kernels work in blocks, and memory is used again for the same lengths
    call: dict[str, Any] = {
        "input_ids": _row(layout.token_T, device),
        "position_ids": _row(layout.position_T, device),
        # Four dimensions, so that transformers makes no mask of its own; `attention` uses only the layout.
        "attention_mask": torch.empty((1, 1, 1, 1), dtype=torch.bool, device=device),
        "layout": layout,
        "use_cache": False,
    }
    target_1L = _row(layout.target_L, device)
    if device.type == "cpu" and torch.is_grad_enabled():
        # Without Triton the fused head makes many separate passes over the vocabulary and another matrix product in
        # the backward pass. Three copies of the labels' logits take less memory than the activations.
        logits_LV = model(**call).logits[0]
        return -cross_entropy(logits_LV.float(), target_1L[0], reduction="none")
    log_prob_1L: torch.Tensor = model(**call, shift_labels=target_1L, fused_lm_head=True).log_probs
    return log_prob_1L[0]


def _row(values: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values).to(device)[None]


def install(model: PreTrainedModel) -> None:
    """Register the forward hook on the backbone of `model`; call this once per model."""
    model.base_model.register_forward_hook(select_predecessors, with_kwargs=True)


def select_predecessors(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Reduce the backbone's hidden states to those that predict a label, in the order of the labels."""
    layout = kwargs.get("layout")
    if layout is not None:
        hidden_BTH = output.last_hidden_state
        output.last_hidden_state = hidden_BTH[:, torch.from_numpy(layout.predecessor_L).to(hidden_BTH.device)]
    return output
