"""IFEval's group detectable_content."""

import re
from typing import Final

from selfreward.checks.arguments import Integer, Text
from selfreward.checks.registry import check_kind

_POSTSCRIPTS: Final = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


@check_kind("detectable_content:number_placeholders", num_placeholders=Integer(0))
def number_placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least that many [square brackets], each closed in its own line; empty ones count, as published."""
    return sum(map(_count_brackets, text.split("\n"))) >= num_placeholders


def _count_brackets(line: str) -> int:
    # Equivalent to counting matches of \[.*?\], but linear for any line: a model may print only "[".
    count = 0
    close = -1
    while (start := line.find("[", close + 1)) >= 0 and (close := line.find("]", start)) >= 0:
        count += 1
    return count


@check_kind("detectable_content:postscript", postscript_marker=Text())
def postscript(text: str, *, postscript_marker: str) -> bool:
    """The marker occurs anywhere, in any case; P.S. and P.P.S may have a space after a period, as published.

    Differs: in the published code any other marker is used as a regular expression; here it is taken literally.
    """
    marker = postscript_marker.strip()
    return re.search(_POSTSCRIPTS.get(marker, re.escape(marker.lower())), text.lower()) is not None
