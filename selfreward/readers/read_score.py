"""Parser of `Score: n`.

A parser never raises and never guesses. A verdict that is not clear is missing data: a wrong score does more harm than
a lost draw. These are verdicts:

* `Score: n` at the beginning of a line or of a sentence (also `Final score: n`, `Rating: n`, `Total: n`, with optional
  markup, in other languages, see `languages`), followed by nothing but an explanation. `Score: 5 would need more depth`
  is not a verdict, nor is `Score: 5, if it were longer`. Also a complete sentence such as `I would give it a score of
  4.`; `4/5`, `4 stars` and a box on the first or the last line; and a number that is the complete text.
* Only outside reasoning, quotations, code, quoted lines and repeated prompt blocks (see `cleaned_text`); a verdict in a
  fence counts where there is no other (see `fences`).
* Of several different verdicts the last one counts if it revises the others or is their total. Adjacent ones are
  conflicting, and so is a verdict after a different one that calls itself final, a sentence that revises a `Score: n`
  ("Actually, I would lower it to 2."), and a number changed in its own sentence (`5, reduced to 3`). Others may be
  about different texts (see `other_texts`): ambiguous. Points in the items of a numbered list, or on a line among
  `Relevance: 1` and the like, are not a total.
* `4/5` and `4 out of 5` are 4; a total other than the highest score is another scale; half points are read unchanged;
  `1 + 1 + 1 = 3` is 3 if the sum is right. Number words (`four`) are read, up to ten; non-Latin digits
  are not. `4,5` may be two scores or a half point, so it is conflicting.
"""

import math
import re
from collections.abc import Iterator

from selfreward.readers import score_patterns as patterns
from selfreward.readers.cleaned_text import blank_repeated_blocks, cleaned_text, said_text
from selfreward.readers.fences import without_last_fence
from selfreward.readers.normalised_text import normalised, without_markup
from selfreward.readers.points import POINT, is_among_points, rates_again, without_points
from selfreward.readers.statements import CLOSED, Statement, another_item, decide, is_reversal, is_standalone_at
from selfreward.readers.verdicts import NOTHING_STATED, Unscored, Verdict
from selfreward.records import FinishReason


def read_score(text: str, *, finish_reason: FinishReason, low: float = 0.0, high: float = 5.0) -> Verdict:
    """Parse the verdict of the judge's `text`; a score lies in [`low`, `high`]. Never raises."""
    said = without_markup(said_text(text))
    verdict = _read(said, finish_reason=finish_reason, low=low, high=high)
    shown = without_last_fence(said)
    if shown is None or _read(said, finish_reason="stop", low=low, high=high).unscored not in NOTHING_STATED:
        return verdict
    return _read(shown, finish_reason=finish_reason, low=low, high=high)


def _read(text: str, *, finish_reason: FinishReason, low: float, high: float) -> Verdict:
    cleaned = cleaned_text(text)
    shown = blank_repeated_blocks(cleaned)
    points = [found.span() for found in POINT.finditer(shown)]
    statements = [
        statement
        for statement in without_points(list(_statements(shown, low=low, high=high)), shown)
        if not is_among_points(statement, shown)
    ]
    return decide(
        statements,
        shown,
        finish_reason=finish_reason,
        continues=bool(statements)
        and (
            another_item(cleaned, statements[0].end, statements[-1].end, finish_reason=finish_reason)
            or rates_again(statements[-1], points)
        ),
        opening_pattern=patterns.OPENING,
        comparing=False,
    )


def read_number(text: str, *, low: float, high: float) -> Verdict:
    """Parse a text that is only a number, or a number out of a total."""
    line = f"Score: {without_markup(normalised(text)).strip()}"
    head = patterns.HEAD.match(line)
    read = _read_number(line, head, low=low, high=high) if head and "\n" not in line else None
    if read is None or (read[0].score is not None and line[read[1] :].strip(" .")):
        return Verdict(unscored=Unscored.NO_VERDICT)
    return read[0]


def _statements(text: str, *, low: float, high: float) -> Iterator[Statement]:
    done = 0
    for head, formal in _heads(text):
        if head.start() < done or (head.re not in patterns.ALONE and not is_standalone_at(text, head.start())):
            continue
        revises = done > 0 and is_reversal(text, head.start())
        read = _read_number(text, head, low=low, high=high, revises=revises)
        if read is not None:
            verdict, done = read
            groups = head.groupdict()
            final = any(groups.get(name) for name in ("final", "late", "whole"))
            yield Statement(head.start(), done, verdict, final=final, formal=formal)


def _heads(text: str) -> list[tuple[re.Match[str], bool]]:
    """Return what may begin a statement, in order, each with whether it has the requested form."""
    whole = patterns.WHOLE.match(text)
    last_line = text.rstrip().rfind("\n") + 1
    first_line = len(text) - len(text.lstrip())
    lone = [head for head in patterns.LONE.finditer(text) if head.start() <= first_line or head.start() >= last_line]
    boxed = [head for head in patterns.BOX.finditer(text) if head.start() >= last_line]
    without = patterns.NEVER_IN_ASCII if text.isascii() else frozenset()
    found = [
        *((head, True) for pattern in patterns.FORMAL if pattern not in without for head in pattern.finditer(text)),
        *((head, False) for pattern in patterns.SENTENCES if pattern not in without for head in pattern.finditer(text)),
        *((head, False) for head in ([whole] if whole else [*lone, *boxed])),
    ]
    return sorted(found, key=lambda pair: pair[0].start())


def _read_number(
    text: str, head: re.Match[str], *, low: float, high: float, revises: bool = False
) -> tuple[Verdict, int] | None:
    """Return the verdict that begins with the number of `head`, and its end; None when it is not standalone."""
    groups = head.groupdict()
    number, end = groups["number"], head.end()
    added = patterns.SUM.match(text, end)
    if added:
        addends = map(float, re.findall(patterns.NUMBER, added["addends"]))
        if not math.isclose(_value(number) + math.fsum(addends), float(added["sum"])):
            return Verdict(unscored=Unscored.CONFLICTING), added.end()
        number, end = added["sum"], added.end()
    total = patterns.TOTAL.match(text, end)
    if total and total["again"] and _value(total["again"]) != _value(number):
        total = None
    total = total or patterns.CJK_TOTAL.match(text, end)
    end = total.end() if total else end
    scale = patterns.SCALE.match(text, end)
    end = scale.end() if scale else end
    most = {
        *(groups.get(name) for name in ("most", "before", "full")),
        total and total["total"],
        scale and scale["most"],
    } - {None}
    least = {groups.get("least"), scale and scale["least"]} - {None}
    per_cent = patterns.PER_CENT.match(text, end)
    end = per_cent.end() if per_cent else end
    changed = patterns.CHANGED.match(text, end)
    if patterns.RANGE.match(text, end) or (changed and _value(changed["to"]) != _value(number)):
        return Verdict(unscored=Unscored.CONFLICTING), end
    points = patterns.POINTS.match(text, end)
    end = points.end() if points else end
    given = groups.get("given")
    clear = not given or total or scale or revises or groups.get("named") or patterns.RATED.match(given)
    if not (clear or (points and _gives_all_points(text, head))):
        return None  # "It earns 1 point" may be one of several
    fits = patterns.FITS.match(text, end)
    end = fits.end() if fits else end
    # A number on the line below "Score:" is the verdict if nothing else is on that line, unlike the "1." of a list.
    alone = "\n" in head.group() or head.re in patterns.ALONE
    if not (patterns.LINE_ENDS if alone else CLOSED).match(text, end):
        return None
    if per_cent or {_value(n) for n in most if n} - {high} or {_value(n) for n in least if n} - {low}:
        return Verdict(unscored=Unscored.OTHER_SCALE), end
    score = _value(number)
    if not low <= score <= high:
        return Verdict(unscored=Unscored.OUT_OF_RANGE), end
    return Verdict(score=score), end


def _gives_all_points(text: str, head: re.Match[str]) -> bool:
    """Whether "I award 4 points" is the only sentence about points up to there."""
    is_of_response = patterns.OF_RESPONSE.match(head["given"])
    return (
        not is_of_response and _value(head["number"]) != 1 and not patterns.POINTS_GIVEN.search(text, 0, head.start())
    )


def _value(number: str) -> float:
    word = number.lower().lstrip("+-−")
    if word in patterns.WORDS:
        return float(patterns.WORDS.index(word)) * (-1 if number[0] in "-−" else 1)
    return float(number.replace("−", "-"))
