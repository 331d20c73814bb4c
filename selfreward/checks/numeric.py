"""Kind numeric: a number in the text equals the expected one."""

import re
from fractions import Fraction
from typing import Final

from selfreward.checks.arguments import Number, Text
from selfreward.checks.registry import check_kind

# A sign, digits with or without thousands separators, decimals, then a power of ten or the lower half of a fraction.
# Digits inside a word (H2O) or a longer chain (1.2.3, 3/4/2020) do not start a number; no part has over 40 digits.
_NUMBER: Final = re.compile(
    r"(?<![\w/])(?<!\w\.)(?:(?<![)\]])(?P<sign>[-+\u2212]))?[$€£]?(?=\.?[0-9])"
    r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3}){1,12}(?![0-9])|[0-9]{1,40}(?![0-9]))?"
    r"(?P<decimals>\.[0-9]{1,40}(?![0-9]))?"
    r"(?:(?P<power>[eE][-+]?[0-9]{1,3}(?![0-9]))|/(?P<below>[0-9]{1,40})(?![0-9/]))?"
)


@check_kind("numeric", expected=Number(), tolerance=Number(0, default=0), marker=Text(default=None))
def numeric(text: str, *, expected: float, tolerance: float, marker: str | None) -> bool:
    """The last number of the text, or the first after the last `marker` (ignoring case), equals `expected`.

    `tolerance` is absolute. Numbers are compared as exact fractions: 0.1 is 0.1. 1,234.5 and 3/4 and 1e3 are read,
    $ € £ and percent signs are ignored, and a comma is never a decimal sign. A text without a number, or without
    the marker, does not pass.
    """
    value = final_number(text, marker=marker)
    return value is not None and abs(value - Fraction(repr(expected))) <= Fraction(repr(tolerance))


def final_number(text: str, *, marker: str | None) -> Fraction | None:
    """Return the last number of the text, or the first after the last `marker`; None when there is none."""
    if marker is None:
        return next(reversed(read_numbers(text)), None)
    _, found, after = text.lower().rpartition(marker.lower())
    return next(iter(read_numbers(after)), None) if found else None


def read_numbers(text: str) -> list[Fraction]:
    """Return the numbers of a text in order, as exact fractions."""
    return [value for match in _NUMBER.finditer(text) if (value := _value(match)) is not None]


def _value(match: re.Match[str]) -> Fraction | None:
    whole, decimals, power, below = match.group("whole", "decimals", "power", "below")
    if whole is None and decimals is None:
        return None
    value = Fraction((whole or "0").replace(",", "") + (decimals or "") + (power or ""))
    if below is not None:
        if int(below) == 0:
            return None
        value /= int(below)
    return -value if match["sign"] in ("-", "\u2212") else value
