"""Reads `{"explanation": "...", "score": n}`: the form that a JSON schema asks for, and not every server enforces.

Around the one object a Markdown fence and other text are tolerated; the object must stand on its own, at the beginning
of a line or after a colon, with nothing after it on its line. A number in a string (`"4"`, `"4/5"`) is read as in
`Score: 4/5`. Several objects, or several times the key, must agree. Line breaks inside strings are forgiven; of an
object that is not JSON for another reason (quotation marks inside a string, single ones, a comma too many) the score is
read when the key stands there once and has a number: with two of them, one may be the response's.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from selfreward.readers.cleaned_text import introduced, normalised, outside_marks, without_blocks, without_thoughts
from selfreward.readers.read_score import read_number
from selfreward.readers.statements import another_item, nothing_stated
from selfreward.readers.verdicts import Unscored, Verdict
from selfreward.records import FinishReason


class _Object(list[tuple[str, Any]]):
    """The pairs of a JSON object, twice the same key included."""


# Huge numbers become inf instead of an error; NaN and Infinity, which are no JSON, come as floats by themselves.
_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_int=float, strict=False)
_MAX_ATTEMPTS = 64  # each may read to the end of the text
_BEFORE = re.compile(
    r"(?:^[ \t*_]{0,8}(?:json)?[ \t]{0,8}|```[ \t]{0,8}(?:json)?[ \t]{0,8}|:[ \t*_]{0,8}|\[\s{0,8}|,\s{0,8})\Z",
    re.MULTILINE,
)
_AFTER = re.compile(r"[ \t]*(?:[\],.]|```|<[|｜/])?[ \t]*(?:\n|```|<[|｜/]|\Z)")
_BEGUN = re.compile(r'^[ \t]*\{\s*(?:\Z|"(?:explanation|score)\b)', re.MULTILINE | re.IGNORECASE)


def read_json_score(text: str, *, finish_reason: FinishReason, low: float, high: float) -> Verdict:
    """The verdict in the judge's `text`; a score lies in [`low`, `high`]. Never raises on any text."""
    spoken = outside_marks(without_thoughts(normalised(text)))
    text = without_blocks(spoken)
    verdicts: list[Verdict] = []
    first, last, is_json = len(text), 0, False
    for found, start, end in _objects(text):
        if _stands(text, start, end):
            is_json = True
            of_object = _verdicts(found, low=low, high=high)
            verdicts += of_object
            if of_object:
                first, last = min(first, end), end
    if not is_json:
        last, verdicts = _broken(text, low=low, high=high)
        first = last
    if not verdicts:
        return nothing_stated(text, finish_reason=finish_reason)
    if another_item(spoken, first, last):
        return Verdict(unscored=Unscored.RAN_ON)
    if _BEGUN.search(text, last):
        return Verdict(unscored=Unscored.TRUNCATED if finish_reason == "length" else Unscored.CONFLICTING)
    return verdicts[0] if len(set(verdicts)) == 1 else Verdict(unscored=Unscored.CONFLICTING)


_KEY = re.compile(r"[\"']?\bscore[\"']?[ \t]{0,8}:\s{0,8}", re.IGNORECASE)
_NUMBER = re.compile(r"([\"']?)([^\s,}\"']{1,400})\1\s{0,8}(?=[,}])")


def _broken(text: str, *, low: float, high: float) -> tuple[int, list[Verdict]]:
    """Where an object ends that is almost JSON, and its verdict if there is one."""
    start, end = text.find("{"), text.rfind("}") + 1
    keys = list(_KEY.finditer(text, max(start, 0), end))
    number = _NUMBER.match(text, keys[0].end(), end) if len(keys) == 1 else None
    if number is None or not _stands(text, start, end):
        return end, []
    verdict = read_number(number[2], low=low, high=high)
    return end, [] if verdict.unscored is Unscored.NO_VERDICT else [verdict]


def _stands(text: str, start: int, end: int) -> bool:
    before = text[:start].rstrip()
    if before.endswith(":") and introduced(before, len(before) - 1):
        return False
    return bool(_BEFORE.search(text, max(0, start - 64), start) and _AFTER.match(text, end))


def _objects(text: str) -> Iterator[tuple[_Object, int, int]]:
    """All objects that are not inside another one, with start and end."""
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
    """One for each key `score`."""
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
