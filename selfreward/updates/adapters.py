"""Low-rank adapters (2106.09685) on all linear layers, as 2305.14314 recommends; no dropout, as in sampling."""

import copy

import torch
from transformers import PreTrainedModel

from selfreward.recipe import LoraSection


def add_adapters(model: PreTrainedModel, lora: LoraSection, *, seed: int) -> PreTrainedModel:
    """Add newly initialised adapters to `model`; only they are trained. The model's outputs do not change yet.

    `seed` seeds the adapters' weights.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: PreTrainedModel = get_peft_model(model, config)
    return adapted


def merge_adapters(model: PreTrainedModel) -> PreTrainedModel:
    """Return a plain model with the adapters merged into a copy of its weights; `model` may be trained further.

    A model without adapters is returned unchanged.
    """
    if not hasattr(model, "merge_and_unload"):
        return model
    # Merging in place and unmerging afterwards would leave rounding errors in the weights.
    plain: PreTrainedModel = copy.deepcopy(model).merge_and_unload()
    return plain
