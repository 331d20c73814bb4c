"""Rows of files of any format, or of a folder of them, as one stream; the suffix decides how a file is read."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from selfreward.errors import RecipeError
from selfreward.prompts.files.arrow_rows import parquet_rows
from selfreward.prompts.files.delimited import delimited_rows
from selfreward.prompts.files.json_rows import json_rows
from selfreward.prompts.files.row import Row
from selfreward.prompts.files.saved_dataset import dataset_rows, is_saved_dataset, saved_rows
from selfreward.prompts.files.text import open_text, read_lines
from selfreward.recipe.nearby import beside
from selfreward.recipe.prompts import COMPRESSIONS, FORMATS, existing_path, format_of

_DESCRIPTION = re.compile(r"dataset_infos?\.json|state\.json|[._].*")
"""Files in a folder that describe its data, and hidden ones."""


def open_rows(path: str, *, other: str = "", key: str = "") -> Iterator[Row]:
    """Yield the rows of a file or folder. Raises RecipeError.

    `other` is the format of a file with another suffix, `key` the key of the recipe that names the file.
    """
    place = existing_path(path)
    if place is None:
        where = f"{key}: {path}" if key else path
        raise RecipeError(f"{where}: no such file; a file or a folder of files is needed; {beside(path)}")
    if place.is_dir():
        return saved_rows(place, path, split="train") if is_saved_dataset(place) else _folder_rows(place, path)
    return _file_rows(place, path, other)


def _file_rows(file: Path, name: str, other: str = "") -> Iterator[Row]:
    kind = format_of(file.name) or other
    if not kind:
        raise RecipeError(
            f"{name}: unknown suffix {file.suffix!r}; files end in {', '.join(FORMATS)}, and those of text may also "
            f"have {', '.join(COMPRESSIONS)}; convert or rename it"
        )
    if not (file.is_file() or other):
        raise RecipeError(f"{name}: a pipe or a device; a regular file is needed; write its content to a file")
    if kind == ".parquet":
        yield from parquet_rows(file, name)
        return
    with open_text(file, name, newline="" if kind in (".csv", ".tsv") else "\n") as stream:
        if kind in (".csv", ".tsv"):
            yield from delimited_rows(stream, name)
        elif kind == ".txt":
            for number, line in read_lines(stream, name):
                if text := line.strip():
                    yield Row(f"{name}, line {number}", f"line-{number}", {"prompt": text})
        else:
            yield from json_rows(stream, name, may_span_lines=kind == ".json")


def data_files(folder: Path) -> list[Path]:
    """Return the files of known formats in a folder and its folders, without hidden ones and descriptions."""
    files = (file for file in folder.rglob("*") if format_of(file.name) and file.is_file())
    return sorted(
        file for file in files if not any(_DESCRIPTION.fullmatch(part) for part in file.relative_to(folder).parts)
    )


def _folder_rows(folder: Path, name: str) -> Iterator[Row]:
    files = data_files(folder)
    if not files:
        there = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
        raise RecipeError(
            f"{name}: a folder without a data file (it contains {there}); files end in {', '.join(FORMATS)}; give "
            "another folder, or a file"
        )
    for file in files:
        inside = file.relative_to(folder)
        stem = "-".join((*inside.parent.parts, inside.name.split(".")[0]))
        for row in _file_rows(file, f"{name}/{inside}"):
            yield replace(row, id=f"{stem}-{row.id}")
