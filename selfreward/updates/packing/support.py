"""Which models can be packed: a check of the configuration, and a verification on the model itself.

A wrong mask does not fail: it trains on wrong numbers. So before the first step the model computes two of the pairs
packed and padded, and the log-probabilities must agree.
"""

import math
from collections.abc import Sequence

import torch
from transformers import PretrainedConfig, PreTrainedModel

from selfreward.errors import RecipeError
from selfreward.updates.packing import attention
from selfreward.updates.packing.forward import label_logps
from selfreward.updates.packing.layout import Layout, PairTokens, lay_out_pairs
from selfreward.updates.packing.padded_batch import padded_batch

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
# Largest and mean difference of a token's log-probability, in nats. Only the order of summation may differ. With
# SmolLM2-135M in bfloat16 on a CPU these are 0.21 and 0.055; with positions that do not restart, or one token of a
# prefix hidden, they are 3.4 and 0.15 or more.
TOLERANCE = {torch.float32: (2e-3, 2e-3), torch.bfloat16: (0.5, 0.1), torch.float16: (0.1, 0.02)}


def check_configuration(config: PretrainedConfig, *, longest: int) -> None:
    """Raise RecipeError for a configuration that cannot be packed. `longest`: number of tokens of the longest row."""
    text = config.get_text_config()
    if text is not config or getattr(config, "is_encoder_decoder", False):
        raise _refusal(config, "it is not a decoder-only model of text")
    if unknown := sorted(set(getattr(text, "layer_types", None) or []) - KNOWN_LAYERS):
        raise _refusal(config, f"it has layers of type {unknown[0]}, not full or sliding-window attention")
    if getattr(text, "output_router_logits", False):
        raise _refusal(config, "its router loss counts every token of the padded batch")
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):  # one per layer type
        kind = part.get("rope_type", part.get("type"))
        limit = part.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None)
        if kind in LENGTH_DEPENDENT_ROPE and longest > (limit or longest):
            raise _refusal(config, f"its {kind} positions depend on the longest row of a batch beyond {limit} tokens")


def verify(
    model: PreTrainedModel, pairs: Sequence[PairTokens], *, device: torch.device, dtype: torch.dtype | None = None
) -> float:
    """Return the largest difference in nats between packed and plain log-probabilities.

    `dtype` is the precision of the computation, if it is not that of the weights. Raises RecipeError when the largest
    or the mean difference exceeds the tolerance, or when a layer does not attend as the configuration says.
    """
    if not attention.is_packed(model.config._attn_implementation):
        raise _refusal(model.config, "it does not use transformers' attention interface")
    inputs = {name: values.to(device) for name, values in padded_batch(pairs).items()}
    layout = lay_out_pairs(pairs)
    with torch.no_grad():
        # Packed first: it refuses what newer versions of transformers refuse in the plain pass, with what to do.
        packed = label_logps(model, {**inputs, "layout": layout})
        plain = label_logps(model, inputs)
    _check_calls(model.config, layout)
    if not plain.isfinite().all():
        return math.inf  # the weights are broken: the reference pass raises an error that names the pairs
    difference = (plain - packed).abs()
    found = float(difference.max()), float(difference.sum() / inputs["completion_mask"].sum())
    allowed = TOLERANCE[dtype or model.dtype]
    if not (found[0] <= allowed[0] and found[1] <= allowed[1]):
        raise _refusal(
            model.config, f"packed log-probabilities differ from its own by up to {found[0]:.3g} and on average by "
            f"{found[1]:.3g} nats on {len(pairs)} pairs, and at most {allowed[0]:g} and {allowed[1]:g} are allowed"
        )  # fmt: skip
    return found[0]


def _check_calls(config: PretrainedConfig, layout: Layout) -> None:
    """Check that every layer called our attention, with the window that the configuration gives it."""
    if layout.cache.get("num_calls", 0) != config.num_hidden_layers:
        raise _refusal(
            config,
            f"{layout.cache.get('num_calls', 0)} of its {config.num_hidden_layers} layers use transformers' attention "
            "interface",
        )
    window = getattr(config, "sliding_window", None)
    uniform = ["full_attention" if window is None else "sliding_attention"] * config.num_hidden_layers
    for index, kind in enumerate(getattr(config, "layer_types", None) or uniform):
        expected = window if kind == "sliding_attention" else None
        if (found := layout.cache["windows"].get(index)) != expected:
            raise _refusal(config, f"layer {index} ({kind}) attends with a window of {found}, not {expected}")


def _refusal(config: PretrainedConfig, why: str) -> RecipeError:
    return RecipeError(
        f"training.packing: {config.model_type} cannot be packed: {why}; use training.packing: padded, which computes "
        "each row separately, slower but with the same result; a started run may change to it"
    )
