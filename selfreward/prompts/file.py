"""Prompts from a JSONL or Parquet file, read as a stream; errors give file and line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.normalise import conversation_key
from selfreward.prompts.rows import Defect, read_row
from selfreward.records import Prompt

SUFFIXES = (".jsonl", ".parquet")
MAX_LINE_BYTES = 2**24
_BOM = b"\xef\xbb\xbf"


def read_file(path: str, *, column: str = "prompt") -> Iterator[Prompt]:
    """Yield the prompts of a file in order. Rows without an `id` get the id line-N (JSONL) or row-N (Parquet).

    Raises RecipeError at the first row that is not a prompt, or repeats an id or a prompt (see `conversation_key`).
    """
    for _, _, prompt in read_rows(path, column=column):
        yield prompt


def read_rows(
    path: str, *, column: str = "prompt", needed: Sequence[str] = ()
) -> Iterator[tuple[str, Mapping[str, Any], Prompt]]:
    """Yield location, row and prompt of each row, as `read_file`. Also refuses a row that lacks a `needed` column."""
    location_of_id: dict[str, str] = {}
    location_of_text: dict[bytes, str] = {}
    for location, row in _open_rows(Path(path).expanduser(), path):
        where = f"{path}, {location}"
        if missing := [name for name in needed if row.get(name) is None]:
            raise RecipeError(
                f"{where}: no {' and no '.join(map(repr, missing))}; a row needs {', '.join(map(repr, needed))}; "
                "complete the row or remove it"
            )
        default_id = location.replace(" ", "-")
        prompt = read_row(row, column=column, default_id=default_id, source=f"file:{path}", where=where)
        if isinstance(prompt, Defect):
            raise RecipeError(f"{where}: {prompt.found}; {prompt.advice}")
        if (first := location_of_id.setdefault(prompt.id, location)) != location:
            raise RecipeError(f"{where}: the id {prompt.id!r} is also used in {first}; ids must be unique; rename one")
        if (first := location_of_text.setdefault(conversation_key(prompt), location)) != location:
            raise RecipeError(
                f"{where}: the same prompt as {first} (case, white space and a final full stop do not count); "
                "each prompt may occur once in a file; remove one of the two"
            )
        yield where, row, prompt
    if not location_of_id:
        raise RecipeError(
            f"{path}: the file contains no prompt; one prompt per row is needed; give a file with prompts"
        )


def _open_rows(file: Path, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if file.suffix.lower() not in SUFFIXES:
        raise RecipeError(
            f"{path}: unknown suffix {file.suffix!r}; prompt files end in {' or '.join(SUFFIXES)}; "
            "convert it (prompts can also be loaded with `kind: dataset`)"
        )
    if not file.is_file():
        found = "is a folder" if file.is_dir() else f"no such file (looked in {file.parent.resolve()})"
        raise RecipeError(
            f"{path}: {found}; `path` names a file; correct `path` or run from the folder it is relative to"
        )
    return _jsonl_rows(file, path) if file.suffix.lower() == ".jsonl" else _parquet_rows(file, path)


def _jsonl_rows(file: Path, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, line in enumerate(bounded_lines(file, path), start=1):
        if line.strip():
            yield f"line {number}", _json_object(line, f"{path}, line {number}")


def bounded_lines(file: Path, path: str) -> Iterator[bytes]:
    """Yield the lines of a JSONL file, without a byte order mark. RecipeError for an endless line, or no file."""
    # Read as bytes, because only \n ends a line: text mode would also split at a lone \r, as in broken exports.
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(iter(partial(lines.readline, MAX_LINE_BYTES + 1), b""), start=1):
                if len(line) > MAX_LINE_BYTES:
                    raise RecipeError(
                        f"{path}, line {number}: it has more than {MAX_LINE_BYTES:,} bytes; each line is one JSON "
                        "object; check that the file is JSONL, not one large JSON value"
                    )
                yield line.removeprefix(_BOM) if number == 1 else line
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); a readable file is needed; check its permissions"
        ) from error


def _json_object(line: bytes, location: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{location}: byte {error.start + 1} is not UTF-8 ({error.reason}); JSONL must be UTF-8; save the file as "
            "UTF-8"
        ) from error
    # ValueError: invalid JSON, or a number of thousands of digits; RecursionError: brackets nested a thousand deep.
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{location}: not JSON ({error}); each line must be one JSON object; correct or remove the line"
        ) from error
    if not isinstance(row, dict):
        raise RecipeError(
            f"{location}: a JSON {type(row).__name__}; each line must be one JSON object such as "
            '{"prompt": "..."}; correct the line'
        )
    return row


def _parquet_rows(file: Path, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}, after row {number}: text that is not UTF-8; text in Parquet must be UTF-8; write the file again"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(
            f"{path}: not readable as Parquet ({error}); a complete Parquet file is needed; write it again"
        ) from error
