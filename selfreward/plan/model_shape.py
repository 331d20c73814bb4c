"""The size of a model, read from its config and the headers of its weights, without loading the weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.model_files.json_file import read_json_object, text_config
from selfreward.model_files.reading import reading_model
from selfreward.model_files.weights import tensor_shapes

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

    def num_adapter_parameters(self, rank: int) -> int:
        """Return about the weights of low-rank adapters of all linear layers: two of `rank` rows for each matrix."""
        matrices = self.num_matrix_parameters - self.hidden_size * self.vocabulary
        return int(7 * self.num_layers * rank * 2 * (matrices / 7 / self.num_layers) ** 0.5)

    def forward_flops(self, num_tokens: float, *, context: float) -> float:
        """Return the FLOPs of a forward pass over `num_tokens` tokens that attend to `context` others on average.

        One multiplication and one addition per weight (2001.08361, section 2.1), for queries times keys, and for
        attention probabilities times values.
        """
        return num_tokens * (2 * self.num_matrix_parameters + 4 * self.num_layers * self.hidden_size * context)


def read_shape(folder: Path, *, trust_remote_code: bool = False) -> ModelShape:
    """Read the shape of a model; without weights, those that transformers would make for its config count.

    Raises RecipeError when the config is not that of a decoder-only transformer.
    """
    file = folder / "config.json"
    config = text_config(read_json_object(file))
    has_weights = any(folder.glob("*.safetensors"))
    shapes = tensor_shapes(folder) if has_weights else _shapes_of_config(folder, trust_remote_code)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    hidden, num_layers, num_heads, vocabulary = (
        _count(config, key, file) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    )
    total = sum(sizes.values())
    # With a separate output head, the embedding is only looked up.
    looked_up = hidden * vocabulary if any(name.endswith("lm_head.weight") for name in sizes) else 0
    return ModelShape(
        num_parameters=total,
        num_matrix_parameters=total - looked_up,
        num_layers=num_layers,
        hidden_size=hidden,
        num_kv_heads=_count(config, "num_key_value_heads", file, default=num_heads),
        head_size=_count(config, "head_dim", file, default=hidden // num_heads),
        vocabulary=vocabulary,
    )


def _shapes_of_config(folder: Path, trust_remote_code: bool) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of the model that this config describes, built without memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with reading_model(f"model {folder}: config.json", "a config of a model that transformers knows is needed"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _count(config: Mapping[str, Any], key: str, file: Path, *, default: int | None = None) -> int:
    value = config.get(key) or default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RecipeError(
            f"{file}: {key} is {value!r:.40}; the config of a decoder-only transformer has a number above 0; "
            "plan cannot estimate this model, but run may work with it"
        )
    return value
