"""Rows of CSV and its dialects: the first line is the heading, the separator is the one that is most frequent in it."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from typing import Final, TextIO

from selfreward.errors import RecipeError
from selfreward.prompts.files.row import Row
from selfreward.prompts.files.text import MAX_LINE_CHARS, read_lines
from selfreward.prompts.unusable import UnusableRow

SEPARATORS: Final = ",;\t|"


def delimited_rows(stream: TextIO, name: str) -> Iterator[Row]:
    """Yield the rows. A row with another number of cells than the heading is unusable. Raises RecipeError."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE_CHARS))  # a limit of the process; cells may be long
    lines = (line for _, line in read_lines(stream, name))
    first = next(lines, "")
    if named := re.fullmatch(r"sep=(.)\s*", first):  # as Excel names the separator
        reader = csv.reader(lines, delimiter=named[1], strict=True)
    else:
        reader = csv.reader(chain([first], lines), delimiter=_separator(first), strict=True)
    start = 1
    try:
        heading = [cell.strip() for cell in next(reader, [])]
        if repeated := {cell for cell in heading if cell and heading.count(cell) > 1}:
            raise RecipeError(
                f"{name}, line 1: the column {min(repeated)[:40]!r} occurs twice; names must be unique; rename one"
            )
        start = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield Row(f"{name}, line {start}", f"line-{start}", _columns(heading, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        raise RecipeError(
            f"{name}, line {start}: not CSV ({error}); a cell that contains separators, line ends or quotes "
            'must be in quotes, and a quote in it must be doubled (""); correct the line or write the file again'
        ) from error


def _separator(heading: str) -> str:
    unquoted = re.sub(r'"[^"]*"', "", heading)
    return max(SEPARATORS, key=unquoted.count)


def _columns(heading: list[str], cells: list[str]) -> dict[str, str] | UnusableRow:
    if len(cells) != len(heading):
        return UnusableRow(
            "malformed_row",
            f"{len(cells)} cells, but the heading has {len(heading)}",
            "each row must have as many; put texts that contain separators or line ends in quotes",
        )
    return dict(zip(heading, cells, strict=True))
