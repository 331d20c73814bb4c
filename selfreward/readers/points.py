"""Points for one aspect ("Relevance: 1", an item of a numbered list), which are not a total."""

import re
from collections.abc import Sequence

from selfreward.readers import languages
from selfreward.readers import score_patterns as patterns
from selfreward.readers.statements import Statement

# "Relevance: 1", and not "Score: 1".
POINT = re.compile(
    rf"^[ \t*_|\-]{{0,8}}(?!{patterns.MARK}{patterns.WHOSE}(?:{patterns.FINAL}|{patterns.NOUN}|total|overall|final))"
    rf"(?!{patterns.MARK}(?:{languages.NOUN}|{languages.CJK_NAME})(?![^\W_]))[^\W\d][\w '\-]{{0,40}}"
    rf"{patterns.MARK}[:=|]{patterns.MARK}{patterns.NUMBER}(?:[ \t]?{patterns.UNIT})?(?:/{patterns.NUMBER})?[ \t*_."
    rf"|]{{0,8}}$",
    re.IGNORECASE | re.MULTILINE,
)

_ITEM = re.compile(r"^[ \t*_]{0,8}([0-9]{1,2})[.)][ \t*]", re.MULTILINE)


def without_points(statements: Sequence[Statement], text: str) -> list[Statement]:
    """Remove points given by items of a numbered list: "1. It is relevant. Score: 1".

    The first statement in an item is such a point when another item follows, or when the previous item had one.
    """
    items = [(found.start(), int(found[1])) for found in _ITEM.finditer(text)]
    left: list[Statement] = []
    item, point_of = -1, -1  # the item of the current statement; the last item that gave a point
    taken = -1  # the last item with a statement
    for statement in statements:
        while item + 1 < len(items) and items[item + 1][0] < statement.start:
            item += 1
        first, taken = item >= 0 and taken != item, item
        followed = item + 1 < len(items) and item >= 0 and items[item + 1][1] == items[item][1] + 1
        continues = point_of == item - 1 >= 0 and "\n\n" not in text[items[item][0] : statement.start]
        if first and not statement.final and (followed or continues):
            point_of = item
        else:
            left.append(statement)
    return left


def is_among_points(statement: Statement, text: str) -> bool:
    """Whether the lines directly above and below the statement are points."""
    above = text.rfind("\n", 0, statement.start)
    below = text.find("\n", statement.end - 1) + 1
    first = text.rfind("\n", 0, max(above, 0)) + 1
    return above > 0 < below and bool(POINT.match(text, first, above) and POINT.match(text, below))


def rates_again(last: Statement, points: Sequence[tuple[int, int]]) -> bool:
    """Whether there are points both before and after the last statement, where they belong to another item."""
    return bool(points) and points[0][0] < last.start and points[-1][0] >= last.end
