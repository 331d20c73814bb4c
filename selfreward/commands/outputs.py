"""Files that a command writes where its user says: checked before the work begins, and never written over an input."""

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from selfreward.errors import RecipeError, StoreError
from selfreward.recipe import Recipe
from selfreward.store.files import explain_os_errors, final_name_of, partial_name_of, write_atomically
from selfreward.store.lock import start_time_of
from selfreward.store.model_folder import WEIGHTS
from selfreward.store.ownership import run_folder_of

_OPEN_FILES = re.compile(r"/dev/(stdout|stderr)|(?:/dev/fd|/proc/self/fd)/([0-9]+)")  # whatever the shell opened


def check_output(path: Path, *, option: str, inputs: Iterable[Path] = ()) -> None:
    """Refuse an output that cannot be written, or that is one of the inputs or a file of a run folder. RecipeError."""
    try:
        problem = _problem(path, inputs)
        target = path if is_stream(path) else _target(path).parent
    except OSError as error:  # a loop of links, a file among the parents, a name that is too long
        problem = f"{error.strerror}; an output is a file in an existing folder; choose another path"
    if problem:
        raise RecipeError(f"{option} {path}: {problem}")
    if not os.access(target, os.W_OK):
        raise StoreError(f"{option} {path}: {target} is not writable; make it writable, or choose another path")


def write_output(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file, complete or not at all. A device or a pipe is written through; a link leads to its target."""
    if is_stream(path):
        with explain_os_errors(path), _stream(path) as stream:
            write(stream)
        return

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            write(file)

    target = _target(path)
    _remove_left_over(target)
    write_atomically(target, fill)


def _remove_left_over(target: Path) -> None:
    """Remove temporary files of this output by commands that were killed; those of live processes stay."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.*"):
        if final_name_of(path) == target and not path.is_dir() and start_time_of(int(path.name.split(".")[-2])) is None:
            with suppress(OSError):
                path.unlink()


def is_stream(path: Path) -> bool:
    """Return whether a path is a device, a pipe or an open file of this process, which cannot be replaced by a file."""
    return _open_file(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def inputs_of(recipe: Recipe) -> Iterator[Path]:
    """Yield every existing file that a recipe names."""
    return (Path(text).expanduser() for text in _texts(recipe.model_dump()) if _is_file(text))


def _open_file(path: Path) -> int | None:
    """Return the number of the open file of this process for which a path stands."""
    found = _OPEN_FILES.fullmatch(str(path.absolute()))
    return None if found is None else {"stdout": 1, "stderr": 2}.get(found[1]) or int(found[2])


def _stream(path: Path) -> IO[bytes]:
    number = _open_file(path)
    return path.open("ab") if number is None else os.fdopen(os.dup(number), "wb")


def _target(path: Path) -> Path:
    """Return the file to which a link leads, which may not exist yet. Raises OSError for a loop of links."""
    with suppress(FileNotFoundError):
        path.stat()
    return Path(os.path.realpath(path))


def _problem(path: Path, inputs: Iterable[Path]) -> str:
    target = _target(path)
    with suppress(FileNotFoundError):
        partial_name_of(target).lstat()  # an OSError when the name is too long to be written
    if path.is_dir():
        return "a folder; an output is a file; give the name of a file"
    if not is_stream(path) and not target.parent.is_dir():
        return f"the folder {target.parent} does not exist; an output is written to an existing folder; create it"
    if path.exists() and (stat.S_ISBLK(path.stat().st_mode) or stat.S_ISSOCK(path.stat().st_mode)):
        return "a disk or a socket; an output is a file, a pipe or a character device; choose another path"
    if any(path.exists() and other.exists() and path.samefile(other) for other in inputs):
        return "also an input of this command, which it would overwrite; choose another path"
    if (run := run_folder_of(path)) is not None:
        return f"a file of the run in {run}, which it would overwrite; choose another path"
    if model := next((folder for folder in target.parents[:2] if any(folder.glob(f"*{WEIGHTS}"))), None):
        return f"in the folder of a model, {model}, all files of which are the model's; choose another path"
    return ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _is_file(text: str) -> bool:
    try:
        return Path(text).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL character, an unknown user: not a path
        return False
