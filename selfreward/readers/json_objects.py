"""JSON objects in a judge's text that are its own statements, with or without a fence and other text around them."""

import json
import re
from collections.abc import Iterator
from typing import Any

from selfreward.readers.cleaned_text import is_attributed


class Pairs(list[tuple[str, Any]]):
    """The pairs of a JSON object, including duplicate keys."""


# Huge numbers become inf instead of an error; NaN and Infinity, which are not JSON, are parsed as floats anyway.
_DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=float, strict=False)
_MAX_ATTEMPTS = 64  # each may read to the end of the text
_BEFORE = re.compile(
    r"(?:^[ \t*_]{0,8}(?:json)?[ \t]{0,8}|```[ \t]{0,8}(?:json)?[ \t]{0,8}|:[ \t*_]{0,8}|\[\s{0,8}|,\s{0,8})\Z",
    re.MULTILINE,
)
_AFTER = re.compile(r"[ \t]*(?:[\],.]|```|<[|｜/])?[ \t]*(?:\n|```|<[|｜/]|\Z)")


def standalone_objects(text: str) -> Iterator[tuple[Pairs, int, int]]:
    """Yield the objects that are not inside another one, with start and end; not those that the judge attributes."""
    for found, start, end in _objects(text):
        if is_standalone(text, start, end):
            yield found, start, end


def is_standalone(text: str, start: int, end: int) -> bool:
    """Whether what lies between is introduced by nothing or by the judge, and followed by the end of its line."""
    before = text[:start].rstrip()
    if before.endswith(":") and is_attributed(before, len(before) - 1):
        return False
    return bool(_BEFORE.search(text, max(0, start - 64), start) and _AFTER.match(text, end))


def _objects(text: str) -> Iterator[tuple[Pairs, int, int]]:
    start, attempts = text.find("{"), 0
    while start >= 0 and attempts < _MAX_ATTEMPTS:
        attempts += 1
        try:
            found, end = _DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            end = start + 1
        else:
            if isinstance(found, Pairs):
                yield found, start, end
        start = text.find("{", end)


def values_of(found: Pairs, keys: re.Pattern[str], *, within: frozenset[str]) -> list[Any]:
    """Return the values of the keys that match `keys`, or else of those in the objects under the keys `within`.

    Keys are compared without case, and with spaces and hyphens as underscores.
    """
    pairs = [(re.sub(r"[\s-]+", "_", key.strip().casefold()), value) for key, value in found]
    inner = [value for key, value in pairs if key in within and isinstance(value, Pairs)]
    values = [value for key, value in pairs if keys.fullmatch(key) and not (key in within and isinstance(value, Pairs))]
    return values or [value for pairs_inside in inner for value in values_of(pairs_inside, keys, within=within)]
