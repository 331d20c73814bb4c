"""Parser of `{"explanation": "...", "score": n}`, the form of a JSON schema that not every server enforces.

A Markdown fence and other text around the object are tolerated; the object must begin a line or follow a colon, with
nothing after it on its line. A number in a string (`"4"`, `"4/5"`) is read as in `Score: 4/5`. Several objects, or
duplicate keys, must agree. Line breaks inside strings are tolerated; from an object that is not JSON for another reason
(quotation marks inside a string, single quotation marks, a superfluous comma) the score is read if the key occurs once
and has a number: with two of them, one may belong to the response.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from selfreward.readers.cleaned_text import (
    blank_reasoning,
    blank_repeated_blocks,
    blank_shaped_quotations,
    is_attributed,
    normalised,
)
from selfreward.readers.read_score import read_number
from selfreward.readers.statements import another_item, nothing_stated
from selfreward.readers.verdicts import Unscored, Verdict
from selfreward.records import FinishReason


class _Object(list[tuple[str, Any]]):
    """The pairs of a JSON object, including duplicate keys."""


# Huge numbers become inf instead of an error; NaN and Infinity, which are not JSON, are parsed as floats anyway.
_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=float, strict=False)
_MAX_ATTEMPTS = 64  # each may read to the end of the text
_BEFORE = re.compile(
    r"(?:^[ \t*_]{0,8}(?:json)?[ \t]{0,8}|```[ \t]{0,8}(?:json)?[ \t]{0,8}|:[ \t*_]{0,8}|\[\s{0,8}|,\s{0,8})\Z",
    re.MULTILINE,
)
_AFTER = re.compile(r"[ \t]*(?:[\],.]|```|<[|｜/])?[ \t]*(?:\n|```|<[|｜/]|\Z)")
_OPENING = re.compile(r'^[ \t]*\{\s*(?:\Z|"(?:explanation|score)\b)', re.MULTILINE | re.IGNORECASE)


def read_json_score(text: str, *, finish_reason: FinishReason, low: float, high: float) -> Verdict:
    """Parse the verdict of the judge's `text`; a score lies in [`low`, `high`]. Never raises."""
    cleaned = blank_shaped_quotations(blank_reasoning(normalised(text)))
    text = blank_repeated_blocks(cleaned)
    verdicts: list[Verdict] = []
    first, last, is_json = len(text), 0, False
    for found, start, end in _objects(text):
        if _is_standalone(text, start, end):
            is_json = True
            of_object = _verdicts(found, low=low, high=high)
            verdicts += of_object
            if of_object:
                first, last = min(first, end), end
    if not is_json:
        last, verdicts = _read_malformed(text, low=low, high=high)
        first = last
    if not verdicts:
        return nothing_stated(text, finish_reason=finish_reason)
    if another_item(cleaned, first, last):
        return Verdict(unscored=Unscored.CONTINUED)
    if _OPENING.search(text, last):
        return Verdict(unscored=Unscored.TRUNCATED if finish_reason == "length" else Unscored.CONFLICTING)
    return verdicts[0] if len(set(verdicts)) == 1 else Verdict(unscored=Unscored.CONFLICTING)


_KEY = re.compile(r"[\"']?\bscore[\"']?[ \t]{0,8}:\s{0,8}", re.IGNORECASE)
_NUMBER = re.compile(r"([\"']?)([^\s,}\"']{1,400})\1\s{0,8}(?=[,}])")


def _read_malformed(text: str, *, low: float, high: float) -> tuple[int, list[Verdict]]:
    """Return the end of an object that is almost JSON, and its verdict if there is one."""
    start, end = text.find("{"), text.rfind("}") + 1
    keys = list(_KEY.finditer(text, max(start, 0), end))
    number = _NUMBER.match(text, keys[0].end(), end) if len(keys) == 1 else None
    if number is None or not _is_standalone(text, start, end):
        return end, []
    verdict = read_number(number[2], low=low, high=high)
    return end, [] if verdict.unscored is Unscored.NO_VERDICT else [verdict]


def _is_standalone(text: str, start: int, end: int) -> bool:
    before = text[:start].rstrip()
    if before.endswith(":") and is_attributed(before, len(before) - 1):
        return False
    return bool(_BEFORE.search(text, max(0, start - 64), start) and _AFTER.match(text, end))


def _objects(text: str) -> Iterator[tuple[_Object, int, int]]:
    """Yield all objects that are not inside another one, with start and end."""
    start, attempts = text.find("{"), 0
    while start >= 0 and attempts < _MAX_ATTEMPTS:
        attempts += 1
        try:
            found, end = _DECODER.raw_decode(text, start)
        except (json.JSONDecodeError, RecursionError):
            end = start + 1
        else:
            if isinstance(found, _Object):
                yield found, start, end
        start = text.find("{", end)


def _verdicts(found: _Object, *, low: float, high: float) -> list[Verdict]:
    """Return a verdict for each key `score`."""
    values = [(key.strip().casefold(), value) for key, value in found]
    most = [value for key, value in values if key in ("max_score", "out_of", "scale", "max")]
    if any(isinstance(value, float) and value != high for value in most):
        return [Verdict(unscored=Unscored.OTHER_SCALE) for key, _ in values if key == "score"]
    return [_verdict(value, low=low, high=high) for key, value in values if key == "score"]


def _verdict(value: Any, *, low: float, high: float) -> Verdict:
    if isinstance(value, str):
        return read_number(value, low=low, high=high)
    if not isinstance(value, float) or value != value:  # a Boolean, null, a list, NaN
        return Verdict(unscored=Unscored.NO_VERDICT)
    return Verdict(score=value) if low <= value <= high else Verdict(unscored=Unscored.OUT_OF_RANGE)
