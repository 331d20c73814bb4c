"""The nesting of JSON files, checked before pyarrow reads them: at some thousand brackets it ends the process."""

import re
from contextlib import suppress
from itertools import accumulate
from pathlib import Path

from selfreward.errors import RecipeError
from selfreward.prompts.files.text import UNREADABLE, open_bytes
from selfreward.recipe.prompts import format_of

MAX_NESTING = 200
_JSON = (".json", ".jsonl", ".ndjson")
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(sorted(set(range(256)) - _STEPS.keys()))


def require_shallow_json(folder: Path, *, where: str) -> None:
    """Raise RecipeError for the first line of a JSON file in a folder that nests deeper than `MAX_NESTING`."""
    for path in sorted(path for path in folder.rglob("*") if format_of(path.name) in _JSON and path.is_file()):
        with suppress(*UNREADABLE), open_bytes(path, str(path)) as lines:  # whoever loads it says why it is unreadable
            for number, line in enumerate(lines, start=1):
                if nesting_of(line) > MAX_NESTING:
                    raise RecipeError(
                        f"{where}: {path}, line {number}: values nested more than {MAX_NESTING} deep; a prompt is a "
                        "text or a list of messages; correct or remove the line"
                    )


def nesting_of(line: bytes) -> int:
    """Return the depth of the brackets outside of strings; an upper bound where it is at most `MAX_NESTING`."""
    most = line.count(b"[") + line.count(b"{")
    if most <= MAX_NESTING:  # nearly every line
        return most
    without_strings = re.sub(rb'"[^"]*"', b"", re.sub(rb"\\.", b"", line))
    brackets = without_strings.translate(None, delete=_NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)
