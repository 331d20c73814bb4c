"""Kind exact: the complete text equals the expected one."""

import re
import unicodedata
from typing import Final

from selfreward.checks.arguments import Flag, Text
from selfreward.checks.registry import check_kind

_AROUND: Final = " .!?,;:\"'`*_()[]{}<>«»\u2018\u2019\u201c\u201d"


def _something_left(*, expected: str, normalised: bool) -> str | None:
    if normalised and not normal_form(expected):
        return f"expected is {expected!r}, which is empty when normalised; give a word, or set normalised to false"
    return None


@check_kind("exact", consistent=_something_left, expected=Text(), normalised=Flag(True))
def exact(text: str, *, expected: str, normalised: bool) -> bool:
    """Equal in normal form, or character by character when `normalised` is false."""
    return normal_form(text) == normal_form(expected) if normalised else text == expected


def normal_form(text: str) -> str:
    """Return the text in NFKC, case folded, with single spaces and without punctuation around it."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"\s+", " ", folded).strip(_AROUND)
