"""Saves during training, for resume. A save is used only if its marker, written last, shows that it is complete."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from selfreward.errors import StoreError
from selfreward.store.files import explain_os_errors, flush, write_text_atomically

MARKER = "complete.json"
LEAST_SECONDS = 1.0


class Pace:
    """When to save: `every` steps, but so seldom that saving takes at most about 5 % of the time.

    After a save of s seconds, the next is 20 s later at the earliest. Saves of less than a second do not wait.
    """

    def __init__(self, every: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._now = every, now
        self._num_steps, self._not_before = 0, 0.0

    def is_due(self) -> bool:
        """Count a step, and return whether to save after it."""
        self._num_steps += 1
        return self._num_steps >= self._every and self._now() >= self._not_before

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measure the save that is made inside."""
        started = self._now()
        yield
        ended = self._now()
        self._num_steps = 0
        self._not_before = ended + 20 * (ended - started) if ended - started >= LEAST_SECONDS else 0.0


def newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest complete save and its marker's contents; remove everything else in `folder`."""
    complete: list[tuple[int, Path, dict[str, Any]]] = []
    for path in sorted(folder.glob("*")):
        facts = _facts(path)
        if facts is None:
            _remove(path)
        else:
            complete.append((facts["step"], path, facts))
    if not complete:
        return None
    _, latest, facts = max(complete, key=lambda save: save[0])
    remove_others(latest)
    return latest, facts


def _facts(path: Path) -> dict[str, Any] | None:
    """Return the marker's contents if the save is complete, else None."""
    try:
        facts: dict[str, Any] = json.loads((path / MARKER).read_text(encoding="utf-8"))
        sizes = {name: (path / name).stat().st_size for name in facts["files"]}
    except (OSError, ValueError):
        return None
    return facts if sizes == facts["files"] else None


def mark_complete(path: Path, *, step: int, **facts: Any) -> None:
    """Flush every file of the save to disk, then write the marker."""
    flush_tree(path)
    sizes = {str(p.relative_to(path)): p.stat().st_size for p in sorted(path.rglob("*")) if p.is_file()}
    write_text_atomically(path / MARKER, json.dumps({"step": step, "files": sizes, **facts}, indent=1))


def remove_others(path: Path) -> None:
    """Remove everything but `path` from its folder: one save is enough to continue from, and saves are large."""
    for other in path.parent.glob("*"):
        if other != path:
            _remove(other)


def _remove(path: Path) -> None:
    # The marker is removed first, so that a kill during the removal leaves a save that is recognised as incomplete.
    (path / MARKER).unlink(missing_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush_tree(folder: Path) -> None:
    """Fsync every file and folder in `folder`, then its parent folder."""
    with explain_os_errors(folder):
        for parent, _, names in os.walk(folder):
            for name in names:
                flush(Path(parent) / name)
            flush(Path(parent))
        flush(folder.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn libraries' exceptions for a failed write into StoreError, and remove the partly written folder."""
    try:
        with explain_os_errors(path):
            yield
    except StoreError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    except (SafetensorError, RuntimeError) as error:
        # safetensors and torch.save do not raise OSError when the disk is full.
        if isinstance(error, RuntimeError) and not _is_failed_write(error):
            raise
        shutil.rmtree(path, ignore_errors=True)
        raise StoreError(
            f"{path}: {str(error).splitlines()[0]}; the run folder must be writable and have space; free some disk "
            "space, then give the same command again: finished work is kept"
        ) from error


def _is_failed_write(error: RuntimeError) -> bool:
    return any(word in str(error) for word in ("inline_container", "PytorchStreamWriter", "No space left"))
