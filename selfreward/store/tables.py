"""Conversion of records to parquet and back; the schema is derived from the dataclass of the record.

Text is UTF-8; tuples are stored as lists, and mappings, whose keys vary by row, as JSON text.
"""

import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
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


def _from_cell(value: Any, hint: Any) -> Any:
    if _is_json(hint):
        cell = json.loads(value)
        return tuple(cell) if isinstance(cell, list) else cell
    if isinstance(value, list):
        return tuple(Message(**item) if isinstance(item, dict) else item for item in value)
    return value


def to_table(record_type: type, records: Iterable[Any]) -> pa.Table:
    hints = _hints(record_type)
    rows = [{name: _to_cell(getattr(r, name), hint) for name, hint in hints.items()} for r in records]
    return pa.Table.from_pylist(rows, schema=schema_of(record_type))


def from_table(record_type: type, table: pa.Table) -> Iterator[Any]:
    hints = _hints(record_type)
    for row in table.to_pylist():
        yield record_type(**{name: _from_cell(row[name], hint) for name, hint in hints.items()})


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table; the same records always give the same bytes."""
    pq.write_table(table, path, compression="zstd")
