"""The prompts of files and datasets: one stream of rows of any format, read by one reader."""

from collections.abc import Iterator
from itertools import islice
from pathlib import PurePath
from typing import assert_never

from selfreward.prompts.collecting import Summary, collect
from selfreward.prompts.dataset import open_dataset
from selfreward.prompts.files import Row, open_rows
from selfreward.prompts.rows import RowReader
from selfreward.recipe import DatasetPrompts, FilePrompts
from selfreward.records import Prompt


def read_prompts(
    section: FilePrompts | DatasetPrompts, *, key: str, at_most: int | None = None
) -> tuple[list[Prompt], Summary]:
    """Return the prompts in the order of the rows, and what was found. `key` is the section's key, for messages.

    With `at_most` only that many rows are read, and any number of them may be unusable. Raises RecipeError.
    """
    columns = section.named_columns
    found, summary = collect(
        islice(_rows(section, key), at_most),
        RowReader(_source(section), columns, section.answer_check).read,
        name=f"{key}: {name_of(section)}",
        max_dropped_rate=section.max_dropped_rate if at_most is None else 1.0,
        section=key,
        columns=columns,
    )
    return [each.prompt for each in found], summary


def name_of(section: FilePrompts | DatasetPrompts) -> str:
    return section.path if isinstance(section, FilePrompts) else f"dataset {section.name!r}"


def _source(section: FilePrompts | DatasetPrompts) -> str:
    return f"file:{PurePath(section.path).name}" if isinstance(section, FilePrompts) else f"dataset:{section.name}"


def _rows(section: FilePrompts | DatasetPrompts, key: str) -> Iterator[Row]:
    match section:
        case FilePrompts():
            return iter(open_rows(section.path, key=key))
        case DatasetPrompts():
            return iter(
                open_dataset(section.name, config=section.config, split=section.split, revision=section.revision)
            )
        case _:
            assert_never(section)
