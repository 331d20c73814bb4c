"""Correct final answers as checks: a number, a mathematical expression, or words."""

import re
from fractions import Fraction
from typing import Any, Final, Literal

from selfreward.prompts.unusable import UnusableRow, described, require_text

AnswerCheck = Literal["auto", "numeric", "exact", "math"]

_MARK: Final = "####"  # GSM8K's, before the final answer of a worked solution
_NUMBER: Final = re.compile(r"([-+\u2212]?)[$€£]?((?:\d{1,3}(?:,\d{3}){1,12}|\d{1,40})?(?:\.\d{1,40})?)\s*%?\.?")
_EXPRESSION: Final = re.compile(r"[\\^{}=/]|\d")


def check_of(value: Any, kind: AnswerCheck) -> dict[str, Any]:
    """Return the check that a response has this final answer. Raises UnusableRow."""
    text = _final(value)
    number = _number(text)
    chosen = kind
    if kind == "auto":
        chosen = "numeric" if number is not None else "math" if _EXPRESSION.search(text) else "exact"
    if chosen != "numeric":
        return {"kind": chosen, "expected": text}
    if number is None:
        raise UnusableRow(
            "bad_answer",
            f"the answer {text[:40]!r} is not a number",
            "answer_check: auto allows others; correct the row",
        )
    return {"kind": "numeric", "expected": number}


def is_checkable(value: Any) -> bool:
    """Return whether an answer that nobody named is surely a final one: a number, or text after GSM8K's mark."""
    if isinstance(value, str):
        return _MARK in value or _number(value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def boxed(solution: str) -> str:
    r"""Return the content of the last \boxed{...} of a worked solution, as MATH has it; "" when there is none."""
    _, found, rest = solution.rpartition("\\boxed{")
    depth = 1
    for end, char in enumerate(rest):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return rest[:end] if found else ""
    return ""


def _final(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = repr(value)
    if not isinstance(value, str):
        raise UnusableRow("bad_answer", f"the answer is {described(value)}", "it must be a text or a number")
    text = require_text(value, "the answer").rpartition(_MARK)[2].strip()
    if not text:
        raise UnusableRow("bad_answer", "the answer is empty", "it must be a text or a number; remove the row")
    return text


def _number(text: str) -> int | float | None:
    """Return a text that is one number, as a whole number when it is one."""
    found = _NUMBER.fullmatch(text.strip())
    if found is None or not any(map(str.isdigit, found[2])):
        return None
    number = Fraction(found[2].replace(",", "")) * (1 if found[1] in ("", "+") else -1)
    return int(number) if number.denominator == 1 else float(number)
