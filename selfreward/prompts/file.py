"""Prompts from a JSONL or Parquet file: read as a stream, every error with its file and line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.normalise import conversation_key
from selfreward.prompts.rows import Defect, read_row
from selfreward.records import Prompt

SUFFIXES = (".jsonl", ".parquet")
_BOM = b"\xef\xbb\xbf"


def read_file(path: str, *, column: str = "prompt") -> Iterator[Prompt]:
    """The prompts of a file in its order. Rows without an `id` are called line-N (JSONL) or row-N (Parquet).

    Raises RecipeError at the first row that is not a prompt, or repeats an id or a prompt (see `conversation_key`).
    """
    for _, _, prompt in read_rows(path, column=column):
        yield prompt


def read_rows(
    path: str, *, column: str = "prompt", needed: Sequence[str] = ()
) -> Iterator[tuple[str, Mapping[str, Any], Prompt]]:
    """As `read_file`: where a row stands, the row, and its prompt. Refuses a row that lacks a `needed` column too."""
    place_of_id: dict[str, str] = {}
    place_of_text: dict[bytes, str] = {}
    for place, row in _open_rows(Path(path).expanduser(), path):
        where = f"{path}, {place}"
        if missing := [name for name in needed if row.get(name) is None]:
            raise RecipeError(
                f"{where}: no {' and no '.join(map(repr, missing))}; a row has {', '.join(map(repr, needed))}; "
                "complete the row or remove it"
            )
        default_id = place.replace(" ", "-")
        prompt = read_row(row, column=column, default_id=default_id, source=f"file:{path}", where=where)
        if isinstance(prompt, Defect):
            raise RecipeError(f"{where}: {prompt.found}; {prompt.advice}")
        if (first := place_of_id.setdefault(prompt.id, place)) != place:
            raise RecipeError(f"{where}: the id {prompt.id!r} is that of {first} too; ids are unique; rename one")
        if (first := place_of_text.setdefault(conversation_key(prompt), place)) != place:
            raise RecipeError(
                f"{where}: the same prompt as {first} (case, white space and a final full stop do not count); "
                "each prompt stands once in a file; remove one of the two"
            )
        yield where, row, prompt
    if not place_of_id:
        raise RecipeError(f"{path}: no prompt in it; a file has one prompt a row; give a file with prompts")


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
    # Bytes, because only \n ends a line: text mode would also split at a lone \r inside broken exports.
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                content = line.removeprefix(_BOM) if number == 1 else line
                if content.strip():
                    yield f"line {number}", _json_object(content, f"{path}, line {number}")
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); a readable file is needed; check its rights"
        ) from error


def _json_object(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{place}: byte {error.start + 1} is not UTF-8 ({error.reason}); JSONL is UTF-8; save the file as UTF-8"
        ) from error
    # ValueError: broken JSON, or a number of thousands of digits; RecursionError: brackets nested a thousand deep.
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{place}: not JSON ({error}); each line is one JSON object; correct or remove the line"
        ) from error
    if not isinstance(row, dict):
        raise RecipeError(
            f"{place}: a JSON {type(row).__name__}; each line is one JSON object such as "
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
            f"{path}, after row {number}: text that is not UTF-8; Parquet text is UTF-8; write the file again"
        ) from error
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(
            f"{path}: not readable as Parquet ({error}); a whole Parquet file is needed; write it again"
        ) from error
