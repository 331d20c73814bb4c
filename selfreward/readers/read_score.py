"""Parser of `Score: n`.

A parser never raises and never guesses. A verdict that is not clear is missing data: a wrong score does more harm than
a lost draw. These are verdicts:

* `Score: n` at the beginning of a line or of a sentence (also `Final score: n`, `Rating: n`, `Total: n`, with optional
  Markdown), followed by nothing but an explanation. `Score: 5 would need more depth` is not a verdict, nor is
  `Score: 5, if it were longer`. Also a complete sentence such as `I would give it a score of 4.`; `4/5` and `4 stars`
  on the first or the last line; and a number that is the complete text.
* Only outside reasoning, quotations, code, quoted lines and repeated prompt blocks (see `cleaned_text`).
* Of several verdicts the last one counts, because judges give points line by line before the total. But adjacent
  verdicts that contradict each other are conflicting, and so is a verdict after a different one that calls itself
  final, a sentence that revises a `Score: n` ("Actually, I would lower it to 2."), and a number changed in its own
  sentence (`5, reduced to 3`). Points in the items of a numbered list, or on a line among `Relevance: 1` and the like,
  are not a total.
* `4/5` and `4 out of 5` are 4; a total other than the highest score is another scale; half points are read unchanged;
  `1 + 1 + 1 = 3` is 3 if the sum is right. Number words (`four`) are read, up to ten; non-Latin digits
  are not. `4,5` may be two scores or a half point, so it is conflicting.
"""

import math
import re
from collections.abc import Iterator, Sequence

from selfreward.readers.cleaned_text import BLANK, blank_reasoning, blank_repeated_blocks, cleaned_text, normalised
from selfreward.readers.statements import CLOSED, Statement, another_item, decide, is_reversal, is_standalone_at
from selfreward.readers.verdicts import Unscored, Verdict
from selfreward.records import FinishReason


def read_score(text: str, *, finish_reason: FinishReason, low: float = 0.0, high: float = 5.0) -> Verdict:
    """Parse the verdict of the judge's `text`; a score lies in [`low`, `high`]. Never raises."""
    cleaned = cleaned_text(blank_reasoning(normalised(text)))
    shown = blank_repeated_blocks(cleaned)
    points = [found.span() for found in _POINT.finditer(shown)]
    statements = [
        statement
        for statement in _without_points(list(_statements(shown, low=low, high=high)), shown)
        if not _among(statement, shown)
    ]
    return decide(
        statements,
        shown,
        finish_reason=finish_reason,
        continues=bool(statements)
        and (another_item(cleaned, statements[0].end, statements[-1].end) or _rates_again(statements[-1], points)),
        opening_pattern=_OPENING,
        step_by_step=True,
    )


def read_number(text: str, *, low: float, high: float) -> Verdict:
    """Parse a text that is only a number, or a number out of a total."""
    line = f"Score: {normalised(text).strip()}"
    head = _HEAD.match(line)
    read = _read_number(line, head, low=low, high=high) if head and "\n" not in line else None
    if read is None or (read[0].score is not None and line[read[1] :].strip(" .")):
        return Verdict(unscored=Unscored.NO_VERDICT)
    return read[0]


# --- Patterns of verdicts ------------------------------------------------------------------------------------------

_MARK = r"[ \t*_]{0,8}"
_NUMBER = r"[0-9]{1,400}(?:\.[0-9]{1,400})?"
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# (?a:) because "ı" and "ſ" are i and s to a pattern that ignores case.
_ANY_NUMBER = rf"(?:{_NUMBER}|(?a:{'|'.join(_WORDS)}))"
_NOUN = r"(?:score|rating|grade)"
_FINAL = r"(?:(?:final|total|overall|revised|updated|adjusted|corrected)[ \t]){1,3}"
_WHOSE = r"(?:(?:the|my)[ \t])?(?:response(?:'s)?[ \t])?"
_OBJECT = r"(?:it|this|(?:the|this)(?:[ \t](?:assistant's|AI's|model's))?[ \t](?:response|answer))"
_OF = rf"(?:[ \t](?:for|of)[ \t]{_OBJECT})?"
_BOXED = r"(?:\$?\\boxed\{|[\[(<{$]{0,2})"
_SPAN = (
    rf"[ \t]?[(\[](?:(?:out of|of|max\.?|/)[ \t]?|(?P<least>{_NUMBER})[ \t]?(?:[-–—]|to)[ \t]?)(?P<most>{_NUMBER})[)\]]"
)
_TAIL = rf"{_BOXED}(?P<number>[+\-−]?{_ANY_NUMBER})(?!\w)[\])>}}$]{{0,2}}{_MARK}"
# "Score: 4", "Final score for this response = 4", "Total: 4"; the number may be on the line below.
_HEAD = re.compile(
    rf"\b{_WHOSE}(?:(?P<final>{_FINAL})?{_NOUN}|(?P<whole>{_FINAL}points?|final|total|overall))"
    rf"{_OF}(?:{_SPAN})?{_MARK}(?:[:=]|->|→|[ \t][–—-](?=[ \t]))(?:{_MARK}[:=])?"
    rf"{_MARK}(?:\n[ \t]{{0,8}}){{0,2}}{_MARK}{_TAIL}",
    re.IGNORECASE,
)
# "I would lower it to 2.", "The score is reduced to 3."
_CHANGE = (
    r"(?:lower|reduce|decrease|raise|increase|change|adjust|revise|correct|update|downgrade|upgrade|bump|drop)"
    r"(?:p?e?[ds])?"
)
_TO = rf"(?:[ \t](?:down|up))?(?:[ \t]from[ \t]{_ANY_NUMBER})?[ \t]to(?:[ \t]an?)?"
# "The score is 4.", "I would give this response a score of 4.", "The response earns a total of 4 points."
_GIVE = r"(?:gives?|gave|rated?|scored?|graded?|assign(?:ed)?|award(?:ed)?)"
_EARN = r"(?:gets?|receives?|earns?|deserves?|merits|scores?|rates|is[ \t](?:given|awarded|rated|scored|graded))"
_SENTENCE = re.compile(
    rf"\b(?:(?:(?:the|my|its|your)[ \t])?(?:response(?:'s)?[ \t])?(?P<final>{_FINAL})?(?:{_NOUN}|total){_OF}"
    rf"[ \t](?:(?:is|would be|should be)(?:[ \t]{_CHANGE}{_TO})?|comes to)[ \t:]"
    r"|(?:I|we)(?:'d|'ll|'ve|[ \t](?:would|will|have|must|should))?(?:[ \t](?:like|have|want|need)[ \t]to)?"
    rf"[ \t]{_CHANGE}[ \t](?:it|this|that|(?:the|my)[ \t](?:{_FINAL})?{_NOUN}){_TO}[ \t]"
    rf"|(?P<given>(?:I|we)(?:'d|[ \t](?:would|will|have))?[ \t]{_GIVE}[ \t]{_OBJECT}"
    rf"|{_OBJECT}[ \t](?:(?:would|should|will)[ \t])?{_EARN})"
    rf"(?:[ \t](?:an?|at|as|with))?(?P<named>[ \t](?:{_FINAL})?(?:{_NOUN}|total)(?:[ \t]of)?)?[ \t])"
    rf"{_MARK}{_TAIL}",
    re.IGNORECASE,
)
_RATED = re.compile(r"(?:I|we)\b.*\b(?:rate|score|grade)d?\b", re.IGNORECASE)
# "Score 4" alone on its line, on two lines as below a heading, or in a table row with two cells.
_BARE = re.compile(
    rf"^[ \t#*_|\-]{{0,8}}(?P<final>{_FINAL})?{_NOUN}(?:[ \t*_]{{1,8}}|{_MARK}(?:\||\n[ \t\n]{{0,8}}){_MARK})"
    rf"(?P<number>{_ANY_NUMBER})(?!\w){_MARK}",
    re.IGNORECASE | re.MULTILINE,
)
# "4/5" or "4 stars" alone on its line, and a number that is the complete text.
_LONE = re.compile(
    rf"^[ \t#*_]{{0,8}}(?P<number>[+\-−]?{_NUMBER}){_MARK}(?=/|out of\b|stars?\b)", re.IGNORECASE | re.MULTILINE
)
_WHOLE = re.compile(rf"[\s#*_{BLANK}]*+(?P<number>[+\-−]?{_NUMBER})(?!\w){_MARK}(?=[^\n]*\s*\Z)")
_SUM = re.compile(rf"{_MARK}(?P<addends>(?:\+{_MARK}{_NUMBER}{_MARK}){{1,24}})={_MARK}(?P<sum>{_NUMBER}){_MARK}")
_TOTAL = re.compile(
    rf"(?:points?|pts?|stars?)?{_MARK}"
    rf"(?:(?:[,;–—-][ \t]|[(\[])(?:(?:which|that)[ \t]is,?[ \t]|i\.e\.,?[ \t])?(?:(?P<again>{_NUMBER}){_MARK})?)?"
    r"(?:/|(?:out[ \t])?of[ \t])[ \t]{0,8}(?:(?:an?|the)[ \t])?"
    rf"(?:(?:possible|maximum|total)[ \t](?:of[ \t])?)?"
    rf"(?P<total>{_ANY_NUMBER})\b(?:[ \t]?(?:points?|pts?|stars?|possible)\b)?[)\]]?{_MARK}",
    re.IGNORECASE,
)
_SCALE = re.compile(
    r"(?:[(,]?[ \t]?(?:on|in|using)[ \t](?:a|the)[ \t](?:scale[ \t](?:of|from)[ \t])?"
    r"|[.,]?[ \t]{1,2}(?:it|which|the[ \t]scale)[ \t](?:goes|ranges|runs)[ \t]from[ \t])"
    rf"(?:(?P<least>{_NUMBER})[ \t]?(?:-|–|to)[ \t]?)?(?P<most>{_NUMBER})(?:[ \t-](?:points?[ \t-])?scale)?\)?{_MARK}",
    re.IGNORECASE,
)
_PER_CENT = re.compile(rf"(?:%|per[ ]?cent\b){_MARK}", re.IGNORECASE)
# "4-5", "4, minus 1", "5 (relevance), 3 (style)".
_RANGE = re.compile(
    rf"(?:[-–—,~&+/]|to\b|(?:,[ \t])?(?:or|minus|plus|less)\b|and\b){_MARK}[0-9]"
    rf"|\([^()\n]{{0,80}}\){_MARK}(?:[,;/&+]|and\b)?{_MARK}[0-9]",
    re.IGNORECASE,
)
_CHANGED = re.compile(
    rf"[,;(–—-]?{_MARK}(?:(?:then|later|now|but)[ \t])?{_CHANGE}{_TO}[ \t](?P<to>{_NUMBER})", re.IGNORECASE
)
_POINTS = re.compile(rf"(?:points?|pts?|stars?)\b{_MARK}", re.IGNORECASE)
_LINE_ENDS = re.compile(r"[ \t]*\.?[ \t*_]*(?:\|[ \t]*)?(?:\n|\Z)")
# The beginning of a verdict in a truncated text.
_OPENING = re.compile(
    rf"[ \t#*_\-]{{0,8}}(?:(?:the|my)[ \t])?(?:{_FINAL}|{_NOUN}\b"
    r"|(?:final|total|overall|fi|fin|fina|to|tot|tota|sc|sco|scor)\Z)",
    re.IGNORECASE,
)


def _statements(text: str, *, low: float, high: float) -> Iterator[Statement]:
    whole = _WHOLE.match(text)
    last_line = text.rstrip().rfind("\n") + 1
    first_line = len(text) - len(text.lstrip())
    lone = [head for head in _LONE.finditer(text) if head.start() <= first_line or head.start() >= last_line]
    found = [
        *((head, True) for pattern in (_HEAD, _BARE) for head in pattern.finditer(text)),
        *((head, False) for head in _SENTENCE.finditer(text)),
        *((head, False) for head in ([whole] if whole else lone)),
    ]
    stated = False
    for head, formal in sorted(found, key=lambda pair: pair[0].start()):
        groups = head.groupdict()
        if head.re in (_HEAD, _SENTENCE) and not is_standalone_at(text, head.start()):
            continue
        revises = stated and is_reversal(text, head.start())
        read = _read_number(text, head, low=low, high=high, revises=revises)
        if read is not None:
            stated = True
            final = any(groups.get(name) for name in ("final", "whole"))
            yield Statement(head.start(), read[1], read[0], final=final, formal=formal)


def _read_number(
    text: str, head: re.Match[str], *, low: float, high: float, revises: bool = False
) -> tuple[Verdict, int] | None:
    """Return the verdict that begins with the number of `head`, and its end; None when it is not standalone."""
    groups = head.groupdict()
    number, end = groups["number"], head.end()
    added = _SUM.match(text, end)
    if added:
        addends = map(float, re.findall(_NUMBER, added["addends"]))
        if not math.isclose(_value(number) + math.fsum(addends), float(added["sum"])):
            return Verdict(unscored=Unscored.CONFLICTING), added.end()
        number, end = added["sum"], added.end()
    total = _TOTAL.match(text, end)
    if total and total["again"] and _value(total["again"]) != _value(number):
        total = None
    end = total.end() if total else end
    scale = _SCALE.match(text, end)
    end = scale.end() if scale else end
    most = {groups.get("most"), total and total["total"], scale and scale["most"]} - {None}
    least = {groups.get("least"), scale and scale["least"]} - {None}
    per_cent = _PER_CENT.match(text, end)
    end = per_cent.end() if per_cent else end
    changed = _CHANGED.match(text, end)
    if _RANGE.match(text, end) or (changed and _value(changed["to"]) != _value(number)):
        return Verdict(unscored=Unscored.CONFLICTING), end
    points = _POINTS.match(text, end)
    end = points.end() if points else end
    given = groups.get("given")
    if given and not (groups["named"] or total or scale or revises or _RATED.match(given)):
        return None  # "It earns 1 point" may be one of several
    # A number on the line below "Score:" is the verdict if nothing else is on that line, unlike the "1." of a list.
    alone = "\n" in head.group() or head.re not in (_HEAD, _SENTENCE)
    if not (_LINE_ENDS if alone else CLOSED).match(text, end):
        return None
    if per_cent or {_value(n) for n in most if n} - {high} or {_value(n) for n in least if n} - {low}:
        return Verdict(unscored=Unscored.OTHER_SCALE), end
    score = _value(number)
    if not low <= score <= high:
        return Verdict(unscored=Unscored.OUT_OF_RANGE), end
    return Verdict(score=score), end


def _value(number: str) -> float:
    word = number.lower().lstrip("+-−")
    if word in _WORDS:
        return float(_WORDS.index(word)) * (-1 if number[0] in "-−" else 1)
    return float(number.replace("−", "-"))


# --- Points that are not a total -----------------------------------------------------------------------------------

# "Relevance: 1", and not "Score: 1".
_POINT = re.compile(
    rf"^[ \t*_|\-]{{0,8}}(?!{_MARK}{_WHOSE}(?:{_FINAL}|{_NOUN}|total|overall|final))[^\W\d][\w '\-]{{0,40}}"
    rf"{_MARK}[:=|]{_MARK}{_NUMBER}(?:/{_NUMBER})?[ \t*_.|]{{0,8}}$",
    re.IGNORECASE | re.MULTILINE,
)

_ITEM = re.compile(r"^[ \t*_]{0,8}([0-9]{1,2})[.)][ \t*]", re.MULTILINE)


def _without_points(statements: Sequence[Statement], text: str) -> list[Statement]:
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


def _among(statement: Statement, text: str) -> bool:
    """Whether the lines directly above and below the statement are points."""
    above = text.rfind("\n", 0, statement.start)
    below = text.find("\n", statement.end - 1) + 1
    first = text.rfind("\n", 0, max(above, 0)) + 1
    return above > 0 < below and bool(_POINT.match(text, first, above) and _POINT.match(text, below))


def _rates_again(last: Statement, points: Sequence[tuple[int, int]]) -> bool:
    """Whether there are points both before and after the last statement, where they belong to another item."""
    return bool(points) and points[0][0] < last.start and points[-1][0] >= last.end
