"""The files of tables: CSV or Parquet, each row as its cells by column, with its place for errors.

Memory is bounded: only known columns of a Parquet file are read, and a line of a CSV file has a longest length.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError

Cells = Mapping[str, Any]
"""The known columns of a row by name: text from CSV, any value from Parquet."""

_PARQUET, _CSV = "a Parquet file", "CSV in UTF-8"
_MAGIC = b"PAR1"  # the first bytes of each Parquet file
_MAX_LINE_CHARS = 2**24
_SHOWN_NAMES, _SHOWN_CHARS = 20, 40


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn what the libraries raise for a file that is no table into a RecipeError."""
    kind = _PARQUET if _is_parquet(path) else _CSV
    try:
        yield
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; {kind} is needed; check the path") from None
    except RecipeError:
        raise
    except (OSError, ValueError, ArithmeticError, NotImplementedError, LookupError, TypeError, csv.Error) as error:
        # pyarrow's own errors are of all these kinds
        words = " ".join("".join(char if char.isprintable() else " " for char in str(error)).split())
        raise RecipeError(f"{path}: cannot be read ({words[:300]}); {kind} is needed; check the file") from error


def read_rows(
    path: Path, known: Sequence[str], required: Sequence[str]
) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    """Return the header, and each row's place with its cells. Raises RecipeError, also while rows are read."""
    if path.is_dir():
        raise IsADirectoryError("it is a folder")
    return _parquet(path, known, required) if _is_parquet(path) else _csv(path, known, required)


def listed(names: Sequence[str]) -> str:
    """Return names of columns for a message: printable and short, whatever the file has in its header."""
    shown = [
        name if name.isprintable() and len(name) <= _SHOWN_CHARS else f"{name!r:.{_SHOWN_CHARS}}" for name in names
    ]
    more = f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(shown[:_SHOWN_NAMES]) + more


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() == ".parquet"


def _csv(path: Path, known: Sequence[str], required: Sequence[str]) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    lines = _csv_lines(path)
    _, first = next(lines, (0, []))
    heading = [name.strip() for name in first]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(heading) == 1 and separator in heading[0]:
            raise RecipeError(f"{path}:1: columns separated by {name}; commas are needed; save the table with commas")
    columns = _columns(path, heading, known, required)

    def rows() -> Iterator[tuple[str, Cells]]:
        for number, line in lines:
            if len(line) != len(heading):
                raise RecipeError(
                    f"{path}:{number}: {len(line)} cells, but the header has {len(heading)}; each row must have as "
                    "many as the header; quote texts with commas, or write the file again if it is truncated"
                )
            yield f"{path}:{number}", {name: line[index] for name, index in columns}

    return heading, rows()


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of each line that is not blank, without the byte order mark that Excel writes."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_LINE_CHARS))  # a limit of the process; cells may be long
    with path.open("rb") as raw:
        if raw.peek(len(_MAGIC))[: len(_MAGIC)] == _MAGIC:
            raise RecipeError(f"{path}: a Parquet file, by its first bytes; {_CSV} is needed; rename it to .parquet")
        reader = csv.reader(_lines(path, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")))
        for line in reader:
            if any(cell.strip() for cell in line):
                yield reader.line_num, line


def _lines(path: Path, stream: io.TextIOWrapper) -> Iterator[str]:
    number = 0
    while line := stream.readline(_MAX_LINE_CHARS + 1):
        number += 1
        if len(line) > _MAX_LINE_CHARS:
            raise RecipeError(
                f"{path}:{number}: the line is longer than {_MAX_LINE_CHARS:,} characters; a row has one outcome for "
                "each column; leave out the columns that the monitor does not use"
            )
        yield line


def _parquet(
    path: Path, known: Sequence[str], required: Sequence[str]
) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    heading = list(file.schema_arrow.names)
    names = [name for name, _ in _columns(path, heading, known, required)]

    def rows() -> Iterator[tuple[str, Cells]]:
        number = 0
        for batch in file.iter_batches(columns=names):
            values = [batch.column(name).to_pylist() for name in names]
            for cells in zip(*values, strict=True):
                number += 1
                yield f"{path}: row {number}", dict(zip(names, cells, strict=True))

    return heading, rows()


def _columns(
    path: Path, heading: Sequence[str], known: Sequence[str], required: Sequence[str]
) -> list[tuple[str, int]]:
    """Return the known columns of a header with their indices."""
    import difflib

    found = [(name, index) for index, name in enumerate(heading) if name in known]
    names = [name for name, _ in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(
            f"{path}:1: the column {min(twice)} is duplicated; names must be unique; remove or rename one"
        )
    for name in required:
        if name not in names:
            others = [other for other in heading if other and other not in names and len(other) <= _SHOWN_CHARS]
            close = difflib.get_close_matches(name, others, n=1)
            advice = f"rename {close[0]!r} if it is that" if close else "add it"
            optional = [name for name in known if name not in required]
            raise RecipeError(
                f"{path}:1: no column {name}; found are {listed(heading) or 'none'}; required are "
                f"{', '.join(required)}, optional {', '.join(optional)}; {advice}"
            )
    return found
