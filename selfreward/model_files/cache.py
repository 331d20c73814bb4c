"""The cache of converted model folders: complete or absent, despite kills and concurrent processes."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from selfreward.errors import RecipeError, StoreError
from selfreward.store.files import flush


def cache_root() -> Path:
    """Return `SELFREWARD_CACHE`, or the folder `selfreward` of XDG_CACHE_HOME, which is ~/.cache unless it is set."""
    if own := os.environ.get("SELFREWARD_CACHE"):
        return Path(own).expanduser()
    # A relative path is ignored, as the XDG Base Directory Specification requires.
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "selfreward"


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
            if path.is_file() and not path.is_symlink():  # what a link leads to belongs to others
                path.chmod(0o644)
                flush(path)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
