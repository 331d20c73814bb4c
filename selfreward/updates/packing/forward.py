"""The seam: called as TRL calls a model with its fused head, it computes a layout and answers with TRL's rectangle.

TRL's losses stay untouched: they read the log-probability of each token of rows [all chosen; all rejected], and get
it. Only the positions that carry a label reach the output layer, on every device. What TRL only counts (entropy, mean
logits, top-1 accuracy) is not computed: several passes over the vocabulary that nobody here reads.
"""

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from selfreward.updates.packing.layout import Layout
from selfreward.updates.trl_loss import FusedCausalLMOutput


class PackedForward:
    """`model` is the trained one, however it is wrapped; its backbone has `keep_predecessors` as a hook."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def __call__(self, *, input_ids: torch.Tensor, layout: Layout | None = None, **options: Any) -> Any:
        """TRL's own call; `log_probs` of the answer is (2B, T - 1). Without a layout the model takes the rectangle."""
        if layout is None:
            return _answer(self._model(input_ids=input_ids, **options).log_probs)
        log_prob_L = self._of_labels(layout, input_ids.device)
        log_prob_L = torch.cat([log_prob_L, log_prob_L.new_zeros(1)])  # the last one is for places without a label
        return _answer(log_prob_L[torch.from_numpy(layout.slot_BR).to(input_ids.device)])

    def _of_labels(self, layout: Layout, device: torch.device) -> torch.Tensor:
        call: dict[str, Any] = {
            "input_ids": _row(layout.token_T, device),
            "position_ids": _row(layout.position_T, device),
            # Of four dimensions, so that transformers makes no mask of its own; `attention` looks at the layout only.
            "attention_mask": torch.empty((1, 1, 1, 1), dtype=torch.bool, device=device),
            "layout": layout,
            "use_cache": False,
        }
        target_1L = _row(layout.target_L, device)
        if device.type == "cpu" and torch.is_grad_enabled():
            # Without Triton the fused head works in many separate passes over the vocabulary and multiplies once more
            # in the backward pass; the logits of the labels alone, three times over, are smaller than the activations.
            logits_LV = self._model(**call).logits[0]
            return -cross_entropy(logits_LV.float(), target_1L[0], reduction="none")
        log_prob_1L: torch.Tensor = self._model(**call, shift_labels=target_1L, fused_lm_head=True).log_probs
        return log_prob_1L[0]


def _answer(log_probs: torch.Tensor) -> Any:
    nothing = torch.zeros_like(log_probs, requires_grad=False)
    return FusedCausalLMOutput(log_probs=log_probs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def _row(values: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(values).to(device)[None]


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
