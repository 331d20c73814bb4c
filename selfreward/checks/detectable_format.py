"""IFEval's group detectable_format."""

import json
import re
from typing import Final

from selfreward.checks.arguments import Integer, Text
from selfreward.checks.registry import check_kind

CONSTRAINED_RESPONSES: Final = ("My answer is yes.", "My answer is no.", "My answer is maybe.")


@check_kind("detectable_format:constrained_response")
def constrained_response(text: str) -> bool:
    """One of the three published sentences occurs anywhere, verbatim."""
    return any(option in text for option in CONSTRAINED_RESPONSES)


@check_kind("detectable_format:number_bullet_lists", num_bullets=Integer(0))
def number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Exactly that many lines that start with one asterisk or with a hyphen, indented or not.

    As published: "**bold**" at the start of a line is not a bullet, a hyphen is one even without a space.
    """
    # Indentation is removed first: the published ^\s*\* takes quadratic time on a run of blank lines.
    lines = "\n".join(line.lstrip() for line in text.split("\n"))
    asterisks = re.findall(r"^\*[^*].*$", lines, flags=re.MULTILINE)
    hyphens = re.findall(r"^-", lines, flags=re.MULTILINE)
    return len(asterisks) + len(hyphens) == num_bullets


@check_kind("detectable_format:number_highlighted_sections", num_highlights=Integer(0))
def number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """At least that many non-empty *highlights* or **highlights**, each in one line."""
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(inside.strip()) for inside in single + double) >= num_highlights


@check_kind("detectable_format:multiple_sections", section_spliter=Text(), num_sections=Integer(0))
def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least that many headings like "Section 1", in this case; `spliter` is the published spelling.

    Differs: in the published code the word is used as a regular expression; here it is taken literally.
    """
    return len(re.findall(re.escape(section_spliter.strip()) + r"\s?\d+", text)) >= num_sections


@check_kind("detectable_format:json_format")
def json_format(text: str) -> bool:
    """The complete text is JSON, with or without a code fence; a bare number or string is JSON too, as published."""
    text = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```").strip()
    try:
        json.loads(text)
    except (ValueError, RecursionError):  # RecursionError: brackets nested thousands deep
        return False
    return True


@check_kind("detectable_format:title")
def title(text: str) -> bool:
    """Some line has <<a title>>, with more than angle brackets inside."""
    return any(map(_has_title, text.split("\n")))


def _has_title(line: str) -> bool:
    # Equivalent to the greedy <<[^\n]+>>, but linear for any line.
    start, end = line.find("<<"), line.rfind(">>")
    return start >= 0 and end >= start + 3 and bool(line[start : end + 2].lstrip("<").rstrip(">").strip())
