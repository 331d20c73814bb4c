"""Rows of files for tests: written, and read as a recipe reads them."""

import json
from pathlib import Path
from typing import Any

from selfreward.prompts.collecting import Summary, collect
from selfreward.prompts.files import Row, open_rows
from selfreward.prompts.rows import Found, RowReader
from selfreward.prompts.unusable import UnusableRow
from selfreward.recipe import Columns
from selfreward.records import Prompt


def write(folder: Path, *rows: object, name: str = "prompts.jsonl") -> str:
    """Write rows as JSON Lines, those that are text as they are; return the path."""
    texts = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_bytes("".join(text + "\n" for text in texts).encode())
    return str(folder / name)


def read(path: str, *, rate: float = 0, **columns: str) -> tuple[list[Prompt], Summary]:
    """Read a file or folder with these names of columns."""
    named = Columns(**columns)
    found, summary = collect(
        open_rows(path), RowReader(f"file:{path}", named).read, name=path, max_dropped_rate=rate,
        section="prompts", columns=named,
    )  # fmt: skip
    return [each.prompt for each in found], summary


def found_in(row: dict[str, Any], *, answer_check: Any = "auto", **columns: str) -> Found:
    """Read one row. Raises UnusableRow."""
    return RowReader("test", Columns(**columns), answer_check).read(Row("line 1", "line-1", row))


def refusal(row: dict[str, Any], **columns: str) -> UnusableRow:
    """Return the error of a row that cannot be used."""
    try:
        found = found_in(row, **columns)
    except UnusableRow as error:
        return error
    raise AssertionError(f"the row can be used: {found}")
