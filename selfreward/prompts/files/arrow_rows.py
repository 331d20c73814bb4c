"""Rows of Arrow tables: Parquet files, and data sets of the `datasets` library. Only text and numbers are decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.files.row import Row

BATCH_ROWS = 256


@dataclass(frozen=True)
class Undecoded:
    """A value that is neither text nor a number, by its type."""

    type: str

    def __str__(self) -> str:
        return self.type


def parquet_rows(path: Path, name: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from arrow_rows(file.iter_batches(batch_size=BATCH_ROWS), name)
    except (pa.ArrowException, OSError) as error:
        raise RecipeError(
            f"{name}: not readable as Parquet ({error}); a complete Parquet file is needed; write it again"
        ) from error


def arrow_rows(batches: Iterable[Any], name: str) -> Iterator[Row]:
    """Yield the rows of tables or record batches, numbered from 1."""
    number = 0
    for batch in batches:
        columns = batch.schema.names
        try:
            values = [_values(batch.column(index)) for index in range(len(columns))]
        except UnicodeDecodeError as error:
            raise RecipeError(
                f"{name}, after row {number}: text that is not UTF-8; text in Parquet must be UTF-8; write the file "
                "again"
            ) from error
        for cells in zip(*values, strict=True):
            number += 1
            yield Row(f"{name}, row {number}", f"row-{number}", dict(zip(columns, cells, strict=True)))


def _values(column: Any) -> list[Any]:
    """Return the values of a column; `Undecoded` for images, sounds and vectors that are there, else null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_plain(column.type):
        return column.to_pylist()  # type: ignore[no-any-return]
    is_list = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    there = pc.greater(pc.list_value_length(column), 0) if is_list else pc.is_valid(column)
    return [Undecoded(str(column.type)) if value else None for value in there.to_pylist()]


def _is_plain(kind: Any) -> bool:
    """Return whether a type consists of texts and numbers, and is no vector."""
    import pyarrow as pa

    is_type = pa.types
    if is_type.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    if is_type.is_list(kind) or is_type.is_large_list(kind):
        return not is_type.is_floating(kind.value_type) and _is_plain(kind.value_type)
    if is_type.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return any(
        test(kind)
        for test in (
            is_type.is_string, is_type.is_large_string, is_type.is_string_view, is_type.is_integer,
            is_type.is_floating, is_type.is_boolean, is_type.is_null,
        )
    )  # fmt: skip
