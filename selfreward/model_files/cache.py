"""The cache of converted model folders: complete or absent, despite kills and concurrent processes."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from selfreward.errors import RecipeError, StoreError
from selfreward.store.files import flush


def cache_root() -> Path:
    """Return `SELFREWARD_CACHE`, or ~/.cache/selfreward."""
    return Path(os.environ.get("SELFREWARD_CACHE") or Path.home() / ".cache" / "selfreward").expanduser()


def cached_folder(key: str, write: Callable[[Path], None]) -> Path:
    """Return the folder `key` of the cache, made by `write(empty_folder)` unless it exists.

    `write` works in a temporary folder that is renamed at the end, so an existing folder is always complete. A lock
    makes a second process wait instead of repeating the work; the system releases it when its holder is killed, and the
    next holder removes incomplete folders.
    """
    from filelock import FileLock

    root = cache_root()
    folder = root / key
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            if not folder.is_dir():
                _make(folder, write)
    except RecipeError:
        raise
    except OSError as error:
        raise StoreError(
            f"model cache {root}: cannot write {key} ({error}); the cache needs a writable folder with space for the "
            "model; free space there, or set SELFREWARD_CACHE to another folder"
        ) from error
    return folder


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    prefix = f"{folder.name}.tmp-"
    for left_over in folder.parent.glob(f"{prefix}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        write(temporary)
        for path in temporary.rglob("*"):  # safetensors makes files readable only by their owner
            if path.is_file():
                path.chmod(0o644)
                flush(path)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
