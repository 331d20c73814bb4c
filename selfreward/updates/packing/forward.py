"""The packed forward pass behind TRL's interface: it is called like a model with TRL's fused head.

TRL's losses stay unmodified: they read the log-probability of each token of the rows [all chosen; all rejected], and
`PackedForward` returns exactly that padded batch. Only positions with a label reach the output layer, on every device.
Quantities that TRL only logs (entropy, mean logits, top-1 accuracy) are not computed: they take several passes over the
vocabulary and are not used here.
"""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from selfreward.updates.packing.flex import BLOCK
from selfreward.updates.packing.layout import Layout
from selfreward.updates.trl_loss import FusedCausalLMOutput


class PackedForward:
    """Packed forward pass of `model`, the trained model, possibly wrapped; its backbone has `select_predecessors` as a
    forward hook."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def __call__(self, *, input_ids: torch.Tensor, layout: Layout | None = None, **options: Any) -> Any:
        """Call as TRL does; `log_probs` of the output is (2B, T - 1). Without a layout the padded batch is computed."""
        if layout is None:
            return _output(self._model(input_ids=input_ids, **options).log_probs)
        log_prob_L = self._label_logps(layout, input_ids.device)
        log_prob_L = torch.cat([log_prob_L, log_prob_L.new_zeros(1)])  # the last entry is for positions without a label
        return _output(log_prob_L[torch.from_numpy(layout.slot_BR).to(input_ids.device)])

    def _label_logps(self, layout: Layout, device: torch.device) -> torch.Tensor:
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
            logits_LV = self._model(**call).logits[0]
            return -cross_entropy(logits_LV.float(), target_1L[0], reduction="none")
        log_prob_1L: torch.Tensor = self._model(**call, shift_labels=target_1L, fused_lm_head=True).log_probs
        return log_prob_1L[0]


def _output(log_probs: torch.Tensor) -> Any:
    nothing = torch.zeros_like(log_probs, requires_grad=False)
    return FusedCausalLMOutput(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


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
