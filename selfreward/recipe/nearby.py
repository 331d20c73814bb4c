"""What is beside a path that does not exist, for messages: a name like it, or the names that are there."""

import difflib
from pathlib import Path

_MAX_NAMES = 8


def beside(path: str) -> str:
    """Return advice that names what was meant, what is beside the path, or the first folder of it that is missing."""
    try:
        place = Path(path).expanduser().absolute()
        if not place.parent.is_dir():
            missing = next(folder for folder in reversed(place.parents) if not folder.is_dir())
            return f"there is no folder {missing}; {_like(missing)}"
        return _like(place)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL character, an unknown user, a folder not readable
        return "correct the path"


def _like(place: Path) -> str:
    names = sorted(each.name for each in place.parent.iterdir() if not each.name.startswith("."))
    if close := difflib.get_close_matches(place.name, names, n=1):
        return f"did you mean {str(place.with_name(close[0]))!r}?"
    more = ", ..." if len(names) > _MAX_NAMES else ""
    there = f"has {', '.join(names[:_MAX_NAMES])}{more}" if names else "is empty"
    return f"{place.parent} {there}; correct the path"
