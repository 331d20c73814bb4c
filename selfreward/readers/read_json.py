"""Parser of `{"explanation": "...", "score": n}`, the form of a JSON schema that not every server enforces.

A Markdown fence and other text around the object are tolerated; the object must begin a line or follow a colon, with
nothing after it on its line. Instead of `score` a server that ignores the schema may write `rating`, `grade` and the
like, also in an object under a key such as `evaluation`. A number in a string (`"4"`, `"4/5"`) is read as in
`Score: 4/5`. Several objects, or duplicate keys, must agree. Line breaks inside strings are tolerated; from an object
that is not JSON for another reason (quotation marks inside a string, single quotation marks, a superfluous comma) the
score is read if the key occurs once and has a number: with two of them, one may belong to the response.
"""

import re
from typing import Any

from selfreward.readers import languages
from selfreward.readers.cleaned_text import blank_repeated_blocks, blank_shaped_quotations, said_text
from selfreward.readers.json_objects import Pairs, is_standalone, standalone_objects, values_of
from selfreward.readers.normalised_text import without_box_tokens
from selfreward.readers.other_texts import first_label_of_another_text
from selfreward.readers.read_score import read_number
from selfreward.readers.statements import another_item, nothing_stated
from selfreward.readers.verdicts import Unscored, Verdict
from selfreward.records import FinishReason

# In order: the keys of a later line count only where none of an earlier line occurs.
_KEYS = (
    re.compile(r"(?:(?:final|overall|total)_?)?score|(?:final|overall|total)_(?:rating|grade)"),
    re.compile(r"rating|grade|points|mark|total|overall|total_points|result"),
    re.compile(rf"{languages.NOUN}|{languages.CJK_NAME}"),
)
_WITHIN = frozenset(
    ("evaluation", "result", "results", "verdict", "judgment", "judgement", "assessment", "grading", "output", "review")
) | frozenset(("feedback", "data", "final", "评价", "评估", "結果", "평가"))
_MOST = re.compile(r"max_score|out_of|scale|max|maximum|max_points|total_possible")
_OPENING = re.compile(r'^[ \t]*\{\s*(?:\Z|"(?:explanation|score)\b)', re.MULTILINE | re.IGNORECASE)


def read_json_score(text: str, *, finish_reason: FinishReason, low: float, high: float) -> Verdict:
    """Parse the verdict of the judge's `text`; a score lies in [`low`, `high`]. Never raises."""
    cleaned = blank_shaped_quotations(without_box_tokens(said_text(text)))
    text = blank_repeated_blocks(cleaned)
    verdicts: list[Verdict] = []
    first, last, is_json = len(text), 0, False
    for found, _, end in standalone_objects(text):
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
    if another_item(cleaned, first, last, finish_reason=finish_reason):
        return Verdict(unscored=Unscored.CONTINUED)
    if _OPENING.search(text, last):
        return Verdict(unscored=Unscored.TRUNCATED if finish_reason == "length" else Unscored.CONFLICTING)
    if len(set(verdicts)) > 1:
        return Verdict(unscored=Unscored.CONFLICTING)
    before = text[: text.find("{")]
    is_of_another_text = first_label_of_another_text(before) < len(before)
    return Verdict(unscored=Unscored.AMBIGUOUS) if is_of_another_text else verdicts[0]


_KEY = re.compile(
    r"[\"']?\b(?:(?:final|overall|total)[_ ]?)?(?P<name>score|rating|grade|points)[\"']?[ \t]{0,8}:\s{0,8}",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"([\"']?)([^\s,}\"']{1,400})\1\s{0,8}(?=[,}])")


def _read_malformed(text: str, *, low: float, high: float) -> tuple[int, list[Verdict]]:
    """Return the end of an object that is almost JSON, and its verdict if there is one."""
    start, end = text.find("{"), text.rfind("}") + 1
    keys = list(_KEY.finditer(text, max(start, 0), end))
    number = _NUMBER.match(text, keys[0].end(), end) if len(keys) == 1 else None
    if number is None or not is_standalone(text, start, end):
        return end, []
    verdict = read_number(number[2], low=low, high=high)
    return end, [] if verdict.unscored is Unscored.NO_VERDICT else [verdict]


def _verdicts(found: Pairs, *, low: float, high: float) -> list[Verdict]:
    """Return a verdict for each key of the first kind that occurs."""
    values = next(filter(None, (values_of(found, keys, within=_WITHIN) for keys in _KEYS)), [])
    most = [value for value in values_of(found, _MOST, within=_WITHIN) if isinstance(value, float)]
    if any(value != high for value in most):
        return [Verdict(unscored=Unscored.OTHER_SCALE) for _ in values]
    return [_verdict(value, low=low, high=high) for value in values]


def _verdict(value: Any, *, low: float, high: float) -> Verdict:
    if isinstance(value, str):
        return read_number(value, low=low, high=high)
    if not isinstance(value, float) or value != value:  # a Boolean, null, a list, NaN
        return Verdict(unscored=Unscored.NO_VERDICT)
    return Verdict(score=value) if low <= value <= high else Verdict(unscored=Unscored.OUT_OF_RANGE)
