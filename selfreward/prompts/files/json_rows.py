"""Rows of JSON: one object per line, an array of objects, or objects one after another, whatever the suffix says."""

import json
from collections.abc import Iterator
from typing import Any, Final, TextIO

from selfreward.errors import RecipeError
from selfreward.prompts.files.row import Row
from selfreward.prompts.files.text import MAX_LINE_CHARS, read_lines
from selfreward.prompts.unusable import UnusableRow

WRAPPERS: Final = ("data", "rows", "examples", "instances", "items", "prompts", "train")
"""An object whose only list is under one of these keys is not a row; the objects of that list are."""

_CHUNK_CHARS = 2**16
_decode = json.JSONDecoder().raw_decode


def json_rows(stream: TextIO, name: str, *, may_span_lines: bool) -> Iterator[Row]:
    """Yield the rows of a JSON text. With `may_span_lines` an object may have several lines also outside an array.

    A broken line is one unusable row; in an array nothing after an error can be read, so it raises RecipeError.
    """
    lines = ((number, line) for number, line in read_lines(stream, name) if line.strip())
    number, first = next(lines, (1, ""))
    is_array = first.lstrip().startswith("[")
    if is_array or (may_span_lines and first and not _is_json(first)):
        yield from _Values(first, number, stream, name).rows(is_array=is_array)
        return
    if first:
        yield from _unwrapped(_row(f"{name}, line {number}", f"line-{number}", first))
    for number, line in lines:
        yield _row(f"{name}, line {number}", f"line-{number}", line)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _row(where: str, row_id: str, line: str) -> Row:
    try:
        value = json.loads(line)
    # ValueError: invalid JSON, or a number of thousands of digits; RecursionError: brackets nested a thousand deep.
    except (ValueError, RecursionError) as error:
        advice = "each line must be one JSON object; correct or remove the line"
        return Row(where, row_id, UnusableRow("not_json", f"not JSON ({error})", advice))
    return Row(where, row_id, _object(value))


def _unwrapped(row: Row) -> Iterator[Row]:
    """Yield the rows that an object contains, or the object when it is a row itself."""
    content = row.content if isinstance(row.content, dict) else {}
    lists = [key for key, value in content.items() if isinstance(value, list)]
    if len(lists) != 1 or lists[0] not in WRAPPERS or not all(isinstance(each, dict) for each in content[lists[0]]):
        yield row
        return
    for number, each in enumerate(content[lists[0]], start=1):
        yield Row(f"{row.where}, {lists[0]!r} {number}", f"row-{number}", each)


def _object(value: Any) -> dict[str, Any] | UnusableRow:
    if isinstance(value, dict):
        return value
    return UnusableRow(
        "wrong_type", f"a JSON {type(value).__name__}", 'a row must be one JSON object such as {"prompt": "..."}'
    )


class _Values:
    """The values of a stream, each decoded as soon as it is complete."""

    def __init__(self, start: str, line: int, stream: TextIO, name: str) -> None:
        self._text, self._at, self._line, self._stream, self._name = start, 0, line, stream, name

    def rows(self, *, is_array: bool) -> Iterator[Row]:
        self._skip("[" if is_array else "")
        number = 0
        while (found := self._next()) and not (is_array and found == "]"):
            if is_array and number:
                self._skip(",")
                self._next()
            number += 1
            where = f"{self._name}, row {number} (line {self._line})"
            row = Row(where, f"row-{number}", _object(self._value()))
            yield from [row] if is_array else _unwrapped(row)
        if is_array:
            self._skip("]")
            if self._next():
                raise self._broken("there is more after the end of the array")

    def _next(self) -> str:
        """Return the next character that is not white space, without moving past it; "" at the end."""
        while True:
            rest = self._text[self._at :]
            after = rest.lstrip()
            self._move(len(rest) - len(after))
            if after or not self._read():
                return after[:1]

    def _skip(self, expected: str) -> None:
        if self._next() != expected and expected:
            raise self._broken(f"{expected!r} is missing; the file may be truncated")
        self._move(len(expected))

    def _value(self) -> Any:
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except RecursionError as error:
                raise self._broken("values nested too deep") from error
            except ValueError as error:
                if self._read():
                    continue
                raise self._broken(str(error).partition(": line ")[0]) from error
            if end == len(self._text) and isinstance(value, int | float) and self._read():
                continue  # the number may go on
            self._move(end - self._at)
            return value

    def _read(self) -> bool:
        """Read as much again as there is, so that decoding a long value anew costs little. False at the end."""
        unread = self._text[self._at :]
        if len(unread) > MAX_LINE_CHARS:
            raise self._broken(f"a value of more than {MAX_LINE_CHARS:,} characters")
        more = self._stream.read(max(_CHUNK_CHARS, len(unread)))
        self._text, self._at = unread + more, 0
        return bool(more)

    def _move(self, num_chars: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + num_chars)
        self._at += num_chars

    def _broken(self, found: str) -> RecipeError:
        return RecipeError(
            f"{self._name}, line {self._line}: not JSON ({found}); the file must be an array of objects, or one object "
            "per line; correct it or write it again"
        )
