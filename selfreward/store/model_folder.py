"""The files of a model folder that influence results: which they are, their hashes, and a stamp of their state.

These are all regular files of the folder itself and of `additional_chat_templates`, without hidden files, documents,
and weights in formats that are never loaded. The weights in safetensors files have their own hash (`weights_sha256`),
of which a checkpoint's id is made.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from selfreward.errors import RecipeError, StoreError
from selfreward.records import Checkpoint
from selfreward.store.files import sha256_of

WEIGHTS = ".safetensors"
UNUSED_WEIGHTS = frozenset({".bin", ".gguf", ".h5", ".msgpack", ".onnx", ".ot", ".pt", ".pth", ".ckpt"})
SUBFOLDERS = ("additional_chat_templates",)
_DOCUMENTS = frozenset({".md", ".rst", ".pdf", ".png", ".jpg"})
_DOCUMENT_NAMES = ("license", "notice", "use_policy", "readme")
# Keys that name the version that wrote the file, which influences nothing.
_WITHOUT = {"config.json": ("transformers_version",), "generation_config.json": ("transformers_version",)}


def entries(folder: Path) -> Iterator[Path]:
    """Yield the entries of a model folder that can influence results, sorted by name, whatever their type."""
    for parent in (folder, *(folder / name for name in SUBFOLDERS)):
        if parent.is_dir():
            yield from (path for path in sorted(parent.iterdir()) if _influences(path))


def _influences(path: Path) -> bool:
    is_document = path.suffix.lower() in _DOCUMENTS or path.name.lower().startswith(_DOCUMENT_NAMES)
    return not (path.name.startswith(".") or is_document or path.suffix.lower() in UNUSED_WEIGHTS)


def leaves(target: Path, folder: Path) -> bool:
    """Return whether a resolved path is outside of the model's folder, or of its folder in the hub's cache.

    A snapshot of that cache consists of links to its blobs.
    """
    home = folder.resolve()
    if home.parent.name == "snapshots" and (home.parent.parent / "blobs").is_dir():
        home = home.parent.parent
    return not target.is_relative_to(home)


def files_sha256(folder: Path) -> dict[str, str]:
    """Return the hash of each file besides the weights, by its path in the folder.

    A configuration is hashed without its `transformers_version`, as canonical JSON: the same model that another version
    saved, or a reformatted file, gives the same hash.
    """
    files = [path for path in entries(folder) if path.suffix != WEIGHTS and path.is_file()]
    return {path.relative_to(folder).as_posix(): _sha256_of(path) for path in files}


def changed_files(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Return the names of the files that were changed, added or removed, sorted."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def require_unchanged(checkpoint: Checkpoint) -> None:
    """Raise an error when files of the checkpoint's folder were changed since this process read them first."""
    if checkpoint.stamp and stamp_of(checkpoint.path) != checkpoint.stamp:
        kind = StoreError if checkpoint.iteration else RecipeError
        raise kind(
            f"{checkpoint.path}: files of this model were changed during the run; all results of a run must come from "
            "the same files; restore them and run the same command again: it compares their hashes"
        )


def stamp_of(folder: Path) -> str:
    """Return a hash of names, sizes and times of all files, weights included: cheap, for one process only."""
    states = [(str(path), *_state(path)) for path in entries(folder) if not path.is_dir()]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _state(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:  # a broken link
        return (0, 0, 0)
    return (found.st_ino, found.st_size, found.st_mtime_ns)


def _sha256_of(path: Path) -> str:
    if path.name in _WITHOUT:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            kept = {key: value for key, value in content.items() if key not in _WITHOUT[path.name]}
            return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
        except (ValueError, AttributeError, RecursionError):
            pass  # not a JSON object: whoever loads it says so
    return sha256_of(path)
