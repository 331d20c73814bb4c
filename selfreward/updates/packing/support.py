"""Which models may be packed: what their configuration rules out, and a proof on the model itself.

A wrong mask does not fail, it trains on wrong numbers. So before the first step the model computes two of the pairs
both ways, and the log-probabilities must agree.
"""

import math
from collections.abc import Sequence

import torch
from transformers import PretrainedConfig, PreTrainedModel

from selfreward.errors import RecipeError
from selfreward.updates.packing import attention
from selfreward.updates.packing.forward import PackedForward
from selfreward.updates.packing.layout import Layout, PairTokens, lay_out_pairs
from selfreward.updates.packing.rectangle import labels_of, rectangle

KNOWN_LAYERS = {"full_attention", "sliding_attention"}
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
# Largest difference of a token's log-probability, in nats. Orders of summation differ, and nothing else.
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 0.5, torch.float16: 0.1}


def check_configuration(config: PretrainedConfig, *, longest: int) -> None:
    """Raises RecipeError for a configuration that cannot be packed. `longest`: tokens of the longest row."""
    text = config.get_text_config()
    if text is not config or getattr(config, "is_encoder_decoder", False):
        raise _refused(config, "it is not a plain decoder of text")
    if unknown := sorted(set(getattr(text, "layer_types", None) or []) - KNOWN_LAYERS):
        raise _refused(config, f"it has layers of type {unknown[0]}, which carry more than the tokens of one row")
    if getattr(text, "output_router_logits", False):
        raise _refused(config, "its router loss counts every token of the padded rectangle")
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    for part in (rope, *(value for value in rope.values() if isinstance(value, dict))):  # some have one per layer type
        kind = part.get("rope_type", part.get("type"))
        limit = part.get("original_max_position_embeddings") or getattr(text, "max_position_embeddings", None)
        if kind in LENGTH_DEPENDENT_ROPE and longest > (limit or longest):
            raise _refused(
                config, f"its {kind} positions change with the longest row of a batch, beyond {limit} tokens"
            )


def prove(model: PreTrainedModel, pairs: Sequence[PairTokens], *, device: torch.device) -> float:
    """The largest difference in nats between packed and plain log-probabilities; RecipeError above the tolerance."""
    if model.config._attn_implementation != attention.NAME:
        raise _refused(model.config, "it does not attend through transformers' attention interface")
    batch = rectangle(pairs)
    inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
    labels = labels_of(batch).to(device)
    layout = lay_out_pairs(pairs)
    with torch.no_grad():
        plain = model(**inputs, labels=labels, use_cache=False, fused_lm_head=True).log_probs
        packed = PackedForward(model)(**inputs, layout=layout).log_probs
    _check_calls(model.config, layout)
    if not plain.isfinite().all():
        return math.inf  # broken weights: the reference pass says so, and names the pairs
    difference = float((plain - packed).abs().max())
    if not difference <= TOLERANCE[model.dtype]:
        raise _refused(
            model.config, f"packed log-probabilities differ from its own by {difference:.3g} nats on "
            f"{len(pairs)} pairs, and {TOLERANCE[model.dtype]:g} is allowed"
        )  # fmt: skip
    return difference


def _check_calls(config: PretrainedConfig, layout: Layout) -> None:
    """Every layer must have attended through us, with the window that its configuration gives it."""
    if layout.kept.get("num_calls", 0) != config.num_hidden_layers:
        raise _refused(
            config,
            f"{layout.kept.get('num_calls', 0)} of its {config.num_hidden_layers} layers attend through transformers' "
            "attention interface",
        )
    window = getattr(config, "sliding_window", None)
    uniform = ["full_attention" if window is None else "sliding_attention"] * config.num_hidden_layers
    for index, kind in enumerate(getattr(config, "layer_types", None) or uniform):
        expected = window if kind == "sliding_attention" else None
        if (found := layout.kept["windows"].get(index)) != expected:
            raise _refused(config, f"layer {index} ({kind}) attends with a window of {found}, not {expected}")


def _refused(config: PretrainedConfig, why: str) -> RecipeError:
    return RecipeError(
        f"training.packing: {config.model_type} cannot be packed: {why}; use training.packing: padded, which computes "
        "every row by itself, slower and with the same result; a started run goes on with it"
    )
