"""Paths in a recipe: relative to the folder of its file, or on the command line to the working directory.

They are resolved when a recipe is read, so that a validated recipe means the same in every working directory. Pydantic
passes the folder as context; without one, paths stay as they are. A field becomes a path by its type alone.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

from pydantic import BeforeValidator, ValidationInfo
from pydantic.fields import FieldInfo

_FOLDER = "folder"
_SCHEMES = ("package:", "random:")  # of models that are no files of the user


class FromCommandLine(str):
    """A text given on the command line."""

    __slots__ = ()


def from_command_line(value: Any) -> Any:
    """Return a value with all its texts marked as given on the command line."""
    if isinstance(value, str):
        return FromCommandLine(value)
    if isinstance(value, Mapping):
        return {key: from_command_line(item) for key, item in value.items()}
    return [from_command_line(item) for item in value] if isinstance(value, list) else value


def relative_to(folder: Path | None) -> dict[str, Path]:
    """Return the context of a validation whose relative paths start at `folder` (None: they stay as they are)."""
    return {} if folder is None else {_FOLDER: folder.absolute()}


def existing_path(name: str, folder: Path | None = None) -> Path | None:
    """Return the path of an existing file or folder, relative to `folder`; None when there is none of this name."""
    try:
        path = (folder or Path()) / Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a NUL character, an unknown user: no path
        return None


def base_of(text: str, info: ValidationInfo) -> Path | None:
    """Return the folder to which a path in this text is relative; None where paths stay as they are."""
    folder: Path | None = (info.context or {}).get(_FOLDER)
    return Path.cwd() if folder is not None and isinstance(text, FromCommandLine) else folder


def looks_like_a_path(text: str) -> bool:
    return text.startswith((".", "/", "~"))


def resolved(text: Any, info: ValidationInfo) -> Any:
    """Return the absolute path. Raises ValueError when only the working directory has the file."""
    folder = base_of(text, info) if isinstance(text, str) else None
    if folder is None or not text:
        return text
    if existing_path(text, folder) is None and (here := existing_path(text, Path.cwd())) is not None:
        raise ValueError(
            f"{text}: not found in {folder.resolve()}, the folder of the recipe, to which its paths are relative; "
            f"the working directory has it; write {os.path.relpath(here, folder)}"
        )
    return _absolute(text, folder)


def resolved_name(text: Any, info: ValidationInfo) -> Any:
    """Return the absolute path of a name that is a path or names an existing folder; any other name stays."""
    if not isinstance(text, str) or not text or text.startswith(_SCHEMES) or (folder := base_of(text, info)) is None:
        return text
    is_path = looks_like_a_path(text) or text.endswith(".gguf")
    found = (existing_path(text, place) for place in (folder, Path.cwd()))
    return resolved(text, info) if is_path or any(path and path.is_dir() for path in found) else str(text)


def resolved_in_patch(patch: Any, info: ValidationInfo) -> Any:
    """Return the keys and values of an intervention with its paths resolved."""
    return _change_paths(patch, lambda path: resolved(path, info))


def with_file_names(patch: Any) -> Any:
    """Return the keys and values of an intervention with the names of its files instead of their paths."""
    return _change_paths(patch, lambda path: PurePath(path).name if isinstance(path, str) else path)


def _change_paths(patch: Any, change: Callable[[Any], Any]) -> Any:
    """Change the paths that the schema has in the sections that an intervention may patch."""
    if isinstance(patch, Mapping):
        return {
            key: change(value) if str(key).split(".")[-1] == "principles" else _change_paths(value, change)
            for key, value in patch.items()
        }
    return [_change_paths(item, change) for item in patch] if isinstance(patch, list) else patch


_PATH, _NAME = BeforeValidator(resolved), BeforeValidator(resolved_name)
InputPath = Annotated[str, _PATH]
"""A file or folder that the run reads."""

NameOrPath = Annotated[str, _NAME]
"""A name of the hub, or a local path: that of an existing folder, or one that looks like a path."""

Patch = Annotated[dict[str, Any], BeforeValidator(resolved_in_patch)]


def paths_in(values: Any) -> Iterator[Path]:
    """Yield the existing files and folders whose absolute paths are among these nested values."""
    if isinstance(values, str):
        path = existing_path(values) if values.startswith("/") else None
        yield from [path] if path else []
    elif isinstance(values, Mapping | list | tuple):
        for item in values.values() if isinstance(values, Mapping) else values:
            yield from paths_in(item)


def is_path(field: FieldInfo) -> bool:
    """Return whether a field of the schema may be a path; what is there is compared by its content on resume."""
    marks = [*field.metadata]
    for member in getattr(field.annotation, "__args__", ()):
        marks += getattr(member, "__metadata__", ())
    return _PATH in marks or _NAME in marks


def _absolute(text: str, folder: Path) -> str:
    """Return the path without `..`, unless it then leads elsewhere, as it may behind a symbolic link."""
    try:
        path = folder / Path(text).expanduser()
        tidy = Path(os.path.abspath(path))  # noqa: PTH100 - unlike resolve(), it keeps the names of links
        return str(path if path.exists() and not (tidy.exists() and tidy.samefile(path)) else tidy)
    except (OSError, ValueError, RuntimeError):  # no path; whoever opens it says so
        return str(text)
