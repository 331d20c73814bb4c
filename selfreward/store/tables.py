"""Conversion of records to parquet and back; the schema is derived from the dataclass of the record.

Text is UTF-8; tuples are stored as lists, and mappings, whose keys vary by row, as JSON text.
"""

import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq

from selfreward.records import Message

_PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])


def _is_json(hint: Any) -> bool:
    """Return whether a type is stored as JSON text: mappings, and tuples of them."""
    origin = get_origin(hint)
    if origin is tuple:
        return _is_json(get_args(hint)[0])
    return origin is Mapping or origin is dict


def _arrow_type(hint: Any) -> pa.DataType:
    origin = get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _arrow_type(next(arg for arg in get_args(hint) if arg is not type(None)))
    if _is_json(hint) or origin is Literal:
        return pa.string()
    if hint is Message:
        return _MESSAGE
    if origin is tuple:
        return pa.list_(_arrow_type(get_args(hint)[0]))
    return _PLAIN[hint]


@cache
def _hints(record_type: type) -> dict[str, Any]:
    hints = typing.get_type_hints(record_type)
    return {f.name: hints[f.name] for f in fields(record_type)}


@cache
def schema_of(record_type: type) -> pa.Schema:
    """Return the parquet schema of a record type: one column per field, in order."""
    return pa.schema([(name, _arrow_type(hint)) for name, hint in _hints(record_type).items()])


def _to_cell(value: Any, hint: Any) -> Any:
    if _is_json(hint):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple) and value and isinstance(value[0], Message):
        return [{"role": m.role, "content": m.content} for m in value]
    return value


def to_table(record_type: type, records: Iterable[Any]) -> pa.Table:
    hints = _hints(record_type)
    rows = [{name: _to_cell(getattr(r, name), hint) for name, hint in hints.items()} for r in records]
    return pa.Table.from_pylist(rows, schema=schema_of(record_type))


def columns_of(record_type: type, *, tokens: bool = True) -> list[str]:
    """Return the columns of a record; `tokens=False`: without the lists of numbers, which hold most of the bytes."""
    return [field.name for field in schema_of(record_type) if tokens or not _is_numbers(field.type)]


def from_table(record_type: type, table: pa.Table) -> Iterator[Any]:
    """Yield the records of a table; a column that it lacks is empty. Only the current record is a Python object."""
    present = set(table.column_names)
    columns = [
        _cells(table[name].combine_chunks(), hint) if name in present else repeat(())
        for name, hint in _hints(record_type).items()
    ]
    yield from map(record_type, *columns)


def _cells(column: pa.Array, hint: Any) -> Iterator[Any]:
    """Yield the values of a column."""
    if _is_json(hint):
        return map(_from_json, column.to_pylist())
    if not pa.types.is_list(column.type):
        return iter(column.to_pylist())
    if _is_numbers(column.type) and not column.values.null_count:
        return _numbers(column)
    return (None if cell is None else tuple(map(_from_item, cell)) for cell in column.to_pylist())


def _numbers(column: pa.ListArray) -> Iterator[tuple[Any, ...] | None]:
    """Yield the rows of a column of numbers without a null among them, which hold most of a table's bytes."""
    values, offsets, is_null = (
        column.values.to_numpy(zero_copy_only=False),
        column.offsets.to_pylist(),
        column.is_null(),
    )
    for row, (begin, end) in enumerate(pairwise(offsets)):
        yield None if column.null_count and is_null[row].as_py() else tuple(values[begin:end].tolist())


def _is_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) and pa.types.is_primitive(kind.value_type))


def _from_json(text: str) -> Any:
    cell = json.loads(text)
    return tuple(cell) if isinstance(cell, list) else cell


def _from_item(item: Any) -> Any:
    return Message(**item) if isinstance(item, dict) else item


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table; the same records always give the same bytes."""
    pq.write_table(table, path, compression="zstd")
