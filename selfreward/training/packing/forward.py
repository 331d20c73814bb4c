"""The seam: called like a model with TRL's fused head, it computes a layout and answers with TRL's rectangle.

TRL's losses and metrics stay untouched: they read per-token values of rows [all chosen; all rejected], and get them.
Only the positions that carry a label reach the output layer, on every device.
"""

from typing import Any

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from selfreward.training.packing.layout import Layout

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


class PackedForward:
    """`model` is the trained one, however it is wrapped; its backbone has `keep_predecessors` as a hook."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def __call__(self, *, input_ids: torch.Tensor, layout: Layout | None = None, **options: Any) -> Any:
        """TRL's own call. Without a layout the model itself is called."""
        if layout is None:
            return self._model(input_ids=input_ids, **options)
        device = input_ids.device
        output = self._model(
            input_ids=_row(layout.token_T, device),
            position_ids=_row(layout.position_T, device),
            # Of four dimensions, so that transformers makes no mask of its own; `attention` looks at the layout only.
            attention_mask=torch.empty((1, 1, 1, 1), dtype=torch.bool, device=device),
            layout=layout,
            shift_labels=_row(layout.label_L, device),
            use_cache=False,
            fused_lm_head=True,
        )
        slot_BR = torch.from_numpy(layout.slot_BR).to(device)
        fields = {name: _rectangle(getattr(output, name), slot_BR) for name in PER_TOKEN}
        return FusedCausalLMOutput(**fields)


def _row(values: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values).to(device)[None]


def _rectangle(value_1L: torch.Tensor | None, slot_BR: torch.Tensor) -> torch.Tensor | None:
    if value_1L is None:
        return None
    value_L = torch.cat([value_1L[0], value_1L.new_zeros(1)])  # the last one is for places without a label
    return value_L[slot_BR]


def install(model: PreTrainedModel) -> None:
    """Hooks the backbone of `model`, once."""
    model.base_model.register_forward_hook(keep_predecessors, with_kwargs=True)


def keep_predecessors(_module: Any, _args: Any, kwargs: dict[str, Any], output: Any) -> Any:
    """Of the backbone's hidden states, those that predict a label, in the order of the labels."""
    layout = kwargs.get("layout")
    if layout is not None:
        hidden_BTH = output.last_hidden_state
        output.last_hidden_state = hidden_BTH[:, torch.from_numpy(layout.predecessor_L).to(hidden_BTH.device)]
    return output
