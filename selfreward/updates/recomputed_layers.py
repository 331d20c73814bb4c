"""Gradient checkpointing (1604.06174) of all layers of a model or of the first ones.

A layer that is computed again in the backward pass keeps its input only. The first n layers, rather than every n-th,
so that memory can be set layer by layer.
"""

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from selfreward.errors import RecipeError


def recompute_layers(model: PreTrainedModel, wanted: bool | int) -> None:
    """Recompute all layers (True), none (False) or the first `wanted`.

    Raises RecipeError when the model has fewer layers than that.
    """
    if wanted is False:
        return
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if wanted is True:
        return
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if wanted > len(layers):
        found = f"1 to {len(layers)}, true and false are" if layers else "of its kind of layer, only true and false are"
        raise RecipeError(
            f"training.gradient_checkpointing: {wanted}, but the model ({model.config.model_type}) has {len(layers)} "
            f"layers that can be computed again one by one; {found} allowed; use true for all layers"
        )
    for layer in layers[wanted:]:
        layer.gradient_checkpointing = False
