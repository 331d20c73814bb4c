"""The headers of safetensors files: whether the weights are complete, and whether they fit the configuration."""

import re
from pathlib import Path
from typing import Any

from selfreward.model_files.json_file import read_json_object, text_config, unreadable

_LAYER = re.compile(r"\blayers\.(\d{1,6})\.")
_EMBEDDING = "embed_tokens.weight"
# Keys of models whose embedding has another width than their layers.
_OTHER_WIDTH = ("word_embed_proj_dim", "embedding_size", "quantization_config")


def require_complete_weights(folder: Path) -> None:
    """Raise RecipeError for weights that are not complete, or not those of the configuration. Reads only headers.

    transformers would continue with randomly initialised weights for layers that the files lack.
    """
    shapes = tensor_shapes(folder)
    _require_all_parts(folder)
    file = folder / "config.json"
    config = text_config(read_json_object(file))
    num_layers = config.get("num_hidden_layers")
    found = [int(layer) for name in shapes for layer in _LAYER.findall(name)]
    if isinstance(num_layers, int) and found and max(found) + 1 < num_layers:
        raise unreadable(file, f"it describes {num_layers} layers; the weights have {max(found) + 1}")
    embedding = next((shape for name, shape in sorted(shapes.items()) if name.endswith(_EMBEDDING)), None)
    wanted = (config.get("vocab_size"), config.get("hidden_size"))
    if embedding and None not in wanted and embedding != wanted and not any(key in config for key in _OTHER_WIDTH):
        raise unreadable(file, f"it describes an embedding of {list(wanted)}; that of the weights is {list(embedding)}")


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by its name. Raises RecipeError for a file that is not complete."""
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as tensors:
                names: Any = tensors.keys()
                shapes |= {name: tuple(tensors.get_slice(name).get_shape()) for name in names}
        except (SafetensorError, OSError, ValueError) as error:
            raise unreadable(path, f"it is not a complete safetensors file ({error})") from error
    if not shapes:
        raise unreadable(folder, "its safetensors files contain no tensor")
    return shapes


def _require_all_parts(folder: Path) -> None:
    """Refuse an index that names files which the folder lacks."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file() or (folder / "model.safetensors").is_file():
        return
    parts = read_json_object(index).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise unreadable(index, "it has no `weight_map` from tensors to files")
    if missing := sorted({part for part in parts.values() if not (folder / Path(part).name).is_file()}):
        raise unreadable(index, f"it names {missing[0]!r:.80}, which is missing")
