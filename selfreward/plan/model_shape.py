"""The size of a model, read from its config and the headers of its weights, without loading the weights."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelShape:
    """`num_matrix_parameters` excludes a separate input embedding, which is only looked up, not multiplied."""

    num_parameters: int
    num_matrix_parameters: int
    num_layers: int
    hidden_size: int
    num_kv_heads: int
    head_size: int
    vocabulary: int

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Return the bytes of keys and values of one token in all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_size * BYTES[dtype]

    def forward_flops(self, num_tokens: float, *, context: float) -> float:
        """Return the FLOPs of a forward pass over `num_tokens` tokens that attend to `context` others on average.

        One multiplication and one addition per weight (2001.08361, section 2.1), for queries times keys, and for
        attention probabilities times values.
        """
        return num_tokens * (2 * self.num_matrix_parameters + 4 * self.num_layers * self.hidden_size * context)


def read_shape(folder: Path) -> ModelShape:
    """Read the shape of a model. Raises RecipeError when the config is not that of a decoder-only transformer."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    sizes = _parameter_counts(folder)
    try:
        hidden, num_layers, num_heads = (config[k] for k in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
        vocabulary = config["vocab_size"]
    except KeyError as error:
        raise RecipeError(
            f"{folder / 'config.json'}: no {error}; the config of a decoder-only transformer has this key; "
            "plan cannot estimate this model, but run may work with it"
        ) from error
    total = sum(sizes.values())
    # With a separate output head, the embedding is only looked up.
    looked_up = hidden * vocabulary if any(name.endswith("lm_head.weight") for name in sizes) else 0
    return ModelShape(
        num_parameters=total,
        num_matrix_parameters=total - looked_up,
        num_layers=num_layers,
        hidden_size=hidden,
        num_kv_heads=config.get("num_key_value_heads") or num_heads,
        head_size=config.get("head_dim") or hidden // num_heads,
        vocabulary=vocabulary,
    )


def _parameter_counts(folder: Path) -> dict[str, int]:
    """Map each tensor name to its number of values, from the headers of the safetensors files."""
    from safetensors import safe_open

    counts: dict[str, int] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as tensors:
            names: Any = tensors.keys()
            counts |= {name: math.prod(tensors.get_slice(name).get_shape()) for name in names}
    return counts
