"""JSON files of model folders, which others wrote: of any size, any encoding, any type inside."""

import json
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError

MAX_CONFIG_BYTES = 16 * 2**20


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a small file, such as config.json. Raises RecipeError, naming the file."""
    try:
        if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
            raise ValueError(f"it has {size:,} bytes; up to {MAX_CONFIG_BYTES:,} are allowed")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it contains a {type(found).__name__}, not an object")
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not JSON, an endless number
        raise unreadable(path, str(error)) from error
    return found


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of the language model, which models with images keep inside."""
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def unreadable(path: Path, found: str) -> RecipeError:
    return RecipeError(
        f"model file {path}: {found}; it must be a file of a model that transformers loads; download or copy the "
        "model again"
    )
