"""The check of a model folder's entries before anything reads them: regular files, of a sensible size, in the folder.

A pipe would block its reader for ever, and a link may lead anywhere: the files besides the weights are copied into
every checkpoint. A snapshot of the hub's cache consists of links into the same cache, which are allowed.
"""

import os
from pathlib import Path

from selfreward.errors import RecipeError
from selfreward.model_files.json_file import MAX_CONFIG_BYTES
from selfreward.store.model_folder import WEIGHTS, entries, leaves

MAX_TEMPLATE_BYTES = 2**20
MAX_OTHER_BYTES = 2**30  # the largest tokenizers have tens of megabytes
_CONFIGS = frozenset(
    {"config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "adapter_config.json"}
)


def require_usable_files(folder: Path, name: str) -> None:
    """Raise RecipeError for the first entry of the model's folder that cannot be read safely."""
    try:
        for path in entries(folder):
            if problem := _problem(path, folder):
                raise RecipeError(
                    f"model {name!r}: {path}: {problem}; the files of a model are regular files in its folder; replace "
                    "it by the file itself, or remove it"
                )
    except OSError as error:
        raise RecipeError(
            f"model {name!r}: {folder} cannot be read ({error.strerror or error}); a readable folder is needed; check "
            "its permissions"
        ) from error


def _problem(path: Path, folder: Path) -> str | None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):  # RuntimeError: a loop, in Python 3.11 and 3.12
        return "it is a link to nothing, or to itself"
    if target.is_dir():
        return "it is a folder" if path.suffix in (WEIGHTS, ".json", ".jinja") else None
    if not target.is_file():
        return "it is a pipe, a socket or a device"
    if path.suffix != WEIGHTS and leaves(target, folder):
        return f"it is a link out of the folder, to {target}, and would be copied into every checkpoint"
    if not os.access(target, os.R_OK):
        return "it cannot be read (permission denied)"
    limit = _max_bytes(path)
    if limit is not None and (size := target.stat().st_size) > limit:
        return f"it has {size:,} bytes; up to {limit:,} are allowed"
    return None


def _max_bytes(path: Path) -> int | None:
    if path.suffix == WEIGHTS:
        return None
    if path.suffix == ".jinja" or path.name == "chat_template.json":
        return MAX_TEMPLATE_BYTES
    return MAX_CONFIG_BYTES if path.name in _CONFIGS else MAX_OTHER_BYTES
