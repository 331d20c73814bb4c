"""Low-rank adapters (2106.09685) in all linear layers, as 2305.14314 advises; without dropout, as in sampling."""

import copy

import torch
from transformers import PreTrainedModel

from selfreward.recipe import LoraSection


def with_adapters(model: PreTrainedModel, lora: LoraSection, *, seed: int) -> PreTrainedModel:
    """`model` with fresh adapters, which change nothing yet; they alone are trained. `seed`: of their weights."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: PreTrainedModel = get_peft_model(model, config)
    return adapted


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """A plain model with the adapters added to its weights; `model` may be trained further. A plain one as it is."""
    if not hasattr(model, "merge_and_unload"):
        return model
    # Merging and subtracting again would leave rounding errors in the weights.
    plain: PreTrainedModel = copy.deepcopy(model).merge_and_unload()
    return plain
