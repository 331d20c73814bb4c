"""The final answers of several responses, compared: which of them are the same."""

import re
from collections.abc import Hashable, Sequence
from typing import Literal, assert_never

from selfreward.checks.exact import normal_form
from selfreward.checks.math_answers import compare, has_answer
from selfreward.checks.numeric import final_number

AnswerKind = Literal["math", "numeric", "exact"]


def answer_classes(texts: Sequence[str], kind: AnswerKind, *, marker: str | None = None) -> list[int | None]:
    """Return a number for each text, the same for texts with the same final answer; None for a text without one.

    As the check of the same name reads it: `math` the last boxed expression, formula or number, `numeric` the last
    number, `exact` the complete text. With a `marker` it is what follows its last occurrence (ignoring case): the first
    number, or the rest of the line.
    """
    match kind:
        case "math":
            return _math_classes([_after(text, marker) for text in texts])
        case "numeric":
            return _classes([final_number(text, marker=marker) for text in texts])
        case "exact":
            return _classes([normal_form(_after(text, marker)) or None for text in texts])
        case _:
            assert_never(kind)


def _classes(keys: Sequence[Hashable]) -> list[int | None]:
    numbers: dict[Hashable, int] = {}
    return [None if key is None else numbers.setdefault(key, len(numbers)) for key in keys]


def _math_classes(texts: Sequence[str]) -> list[int | None]:
    """Compare each answer with the first one of each class: equality of formulas has no key to sort by."""
    classes: dict[str, int] = {}  # by text
    firsts: list[str] = []
    for text in dict.fromkeys(texts):
        if has_answer(text):
            found = next((number for number, first in enumerate(firsts) if compare(first, text) == "same"), None)
            if found is None:
                found = len(firsts)
                firsts.append(text)
            classes[text] = found
    return [classes.get(text) for text in texts]


def _after(text: str, marker: str | None) -> str:
    """Return the rest of the line after the last marker; an empty text when there is none."""
    if marker is None:
        return text
    *_, last = None, *re.finditer(re.escape(marker), text, re.IGNORECASE)
    return "" if last is None else text[last.end() :].partition("\n")[0]
