"""Low-rank adapters (2106.09685) on all linear layers, as 2305.14314 recommends; no dropout, as in sampling.

The weights below the adapters, the base, are frozen, so that they may be stored in fewer bits: in bfloat16, or in four
(2305.14314, section 3). Adapters are float32. A merged model has none of that rounding: its weights are those of the
policy's files plus the product of the adapters.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from selfreward.devices import computes_in_bfloat16
from selfreward.recipe import LoraSection
from selfreward.updates.models import load_model


class Adapter(NamedTuple):
    """The float32 matrices of an adapter on the CPU: the weight changes by `scale` times `b_OR` times `a_RI`.

    O, I: outputs and inputs of the layer, R: rank. Some layers of transformers store the transposed weight.
    """

    a_RI: Tensor
    b_OR: Tensor
    scale: float
    is_transposed: bool

    @property
    def product(self) -> Tensor:
        product_OI = self.scale * self.b_OR @ self.a_RI
        return product_OI.T if self.is_transposed else product_OI


def base_dtype(lora: LoraSection) -> str:
    """Return how the base is stored; `auto` is bfloat16 where the GPU computes in it, and else float32."""
    if lora.base_dtype != "auto":
        return lora.base_dtype
    return "bfloat16" if computes_in_bfloat16() else "float32"


def add_adapters(model: PreTrainedModel, lora: LoraSection, *, seed: int) -> PreTrainedModel:
    """Add newly initialised adapters to `model`; only they are trained. The model's outputs do not change yet.

    `seed` seeds the adapters' weights.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted: PreTrainedModel = get_peft_model(model, config)
    return adapted


def adapters_of(model: nn.Module) -> dict[str, Adapter]:
    """Return the adapters by the name of their layer in the plain model; empty for a model without adapters.

    With sharded weights, all processes call this.
    """
    from peft.tuners.lora import LoraLayer

    return {
        name.removeprefix("base_model.model."): _adapter(module)
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


def _adapter(layer: Any) -> Adapter:
    (name,) = layer.lora_A
    a_RI, b_OR = (_whole(layers[name].weight) for layers in (layer.lora_A, layer.lora_B))
    return Adapter(a_RI, b_OR, layer.scaling[name], getattr(layer, "fan_in_fan_out", False))


def _whole(weights: Tensor) -> Tensor:
    whole = weights.full_tensor() if isinstance(weights, DTensor) else weights
    return whole.detach().float().cpu()


@torch.no_grad()
def merged(
    adapters: dict[str, Adapter], folder: Path, *, dtype: torch.dtype, trust_remote_code: bool
) -> PreTrainedModel:
    """Return the model in `folder` with the adapters' products added in float32, in `dtype` and on the CPU."""
    model = load_model(folder, dtype="auto", trust_remote_code=trust_remote_code)
    for name, adapter in adapters.items():
        weight: Any = model.get_submodule(name).weight
        weight.data = (weight.float() + adapter.product).to(dtype)
    return model.to(dtype)
