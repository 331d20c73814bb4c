"""Readers: they turn what a judge wrote into a verdict, or into the reason why there is none.

A reader never raises and never guesses. A verdict that is not clearly there is missing data: a wrong score does
more harm than a lost draw. What the additive form accepts:

* `Score: n` that stands on its own: at the beginning of a line or of a sentence (`Final score: n` too, with Markdown
  around it), and nothing but an explanation after it. `Score: 5 would need more depth` is not a verdict.
* Outside reasoning (`<think>...</think>`), quotations, code, quoted lines and repeated prompt blocks.
* Of several verdicts the last one counts, because judges give points line by line before the total; but
  verdicts that contradict each other side by side, or after one that calls itself final, are conflicting.
* `4/5` and `4 out of 5` are 4; a total other than 5 is another scale; half points are read as they stand.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from selfreward.records import FinishReason


class Unscored(StrEnum):
    """Why a judgment or a comparison has no verdict. A closed set: reports list exactly these."""

    EMPTY_RESPONSE = "empty_response"  # the response has no visible text: there is nothing to judge
    TOO_LONG = "too_long"  # the judge prompt and its verdict do not fit into the engine's context
    EMPTY_VERDICT = "empty_verdict"  # the judge wrote nothing
    CUT_OFF = "cut_off"  # the token limit came before a complete verdict
    NO_VERDICT = "no_verdict"  # nothing that stands as a verdict
    OUT_OF_RANGE = "out_of_range"  # a number outside the scale
    OTHER_SCALE = "other_scale"  # out of another total, or per cent
    CONFLICTING = "conflicting"  # two verdicts that contradict each other, or a range
    RAN_ON = "ran_on"  # after its verdict the judge went on to another conversation or response
    NO_CHECKS = "no_checks"  # the prompt has no checks for a verifier to run
    LOW_SCORE_MASS = "low_score_mass"  # the score tokens have too little probability to mean anything


@dataclass(frozen=True)
class Verdict:
    """Exactly one of `score` and `unscored` is set."""

    score: float | None = None
    unscored: Unscored | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.unscored is None):
            raise ValueError(f"a verdict has a score or a reason, never both or none: {self.score}, {self.unscored}")


@dataclass(frozen=True)
class _Statement:
    """One `Score: n` that stands on its own; `final` when it calls itself final, total or overall."""

    start: int
    end: int
    verdict: Verdict
    final: bool


def read_additive(text: str, *, finish_reason: FinishReason, low: float = 0.0, high: float = 5.0) -> Verdict:
    """The verdict in the judge's `text`; a score lies in [`low`, `high`]. Never raises on any text."""
    if not text.strip():
        return Verdict(unscored=Unscored.EMPTY_VERDICT)
    text = re.sub("\r\n?|[\u0085\u2028\u2029]", "\n", text).replace("\u00a0", " ")
    spoken = _blank_quotations(_blank_reasoning(text))
    statements = list(_statements(_blank_blocks(spoken), low=low, high=high))
    if not statements:
        return Verdict(unscored=Unscored.CUT_OFF if finish_reason == "length" else Unscored.NO_VERDICT)
    if any(item.start() >= statements[0].end for item in _NEXT_ITEM.finditer(spoken)):
        return Verdict(unscored=Unscored.RAN_ON)
    last = statements[-1]
    if finish_reason == "length" and not text[last.end :].strip("*_. \t"):
        return Verdict(unscored=Unscored.CUT_OFF)  # "Score: 1" may have been on its way to "Score: 10" or to 1.5
    if _contradicted(statements, spoken):
        return Verdict(unscored=Unscored.CONFLICTING)
    return last.verdict


def _contradicted(statements: list[_Statement], text: str) -> bool:
    """Whether another statement contradicts the last one: a final one anywhere, or any one right beside it."""
    last = statements[-1]
    for index, other in enumerate(statements[:-1]):
        beside_last = index == len(statements) - 2 and not re.search(r"\w", text[other.end : last.start])
        if (other.final or (beside_last and not last.final)) and other.verdict != last.verdict:
            return True
    return False


# --- What stands as a verdict ------------------------------------------------------------------------------------

_MARK = r"[ \t*_]{0,8}"
_NUMBER = r"[0-9]{1,400}(?:\.[0-9]{1,400})?"
_HEAD = re.compile(
    r"\b(?:(?:the|my)[ \t])?(?P<final>(?:(?:final|total|overall)[ \t]){1,3})?score"
    rf"(?:[ \t]\((?:out of|of|/|0[ \t]?[-–]|0 to)[ \t]?(?P<scale>{_NUMBER})\))?{_MARK}[:：=]{_MARK}"
    rf"(?:\n[ \t]{{0,8}}){{0,2}}{_MARK}"
    rf"[\[(<{{$]{{0,2}}(?P<number>[+\-−]?{_NUMBER})(?!\w)[\])>}}$]{{0,2}}{_MARK}",
    re.IGNORECASE,
)
_TOTAL = re.compile(
    rf"(?:points?|pts?)?{_MARK}\(?(?:/|(?:out[ \t])?of[ \t])[ \t]{{0,8}}(?P<total>{_NUMBER})"
    rf"(?:[ \t]?(?:points?|pts?)\b)?\)?{_MARK}",
    re.IGNORECASE,
)
_PER_CENT = re.compile(r"%|per[ ]?cent\b", re.IGNORECASE)
_RANGE = re.compile(rf"(?:[-–—,~&+/]|to\b|or\b|and\b){_MARK}[0-9]", re.IGNORECASE)
_POINTS = re.compile(rf"(?:points?|pts?)\b{_MARK}", re.IGNORECASE)
_CLOSED = re.compile(r"\Z|\n|<[|｜/]|[.!;:]{1,3}(?:\s|\Z)|[,;–—-]{1,2}\s|\(|because\b|since\b", re.IGNORECASE)
_LINE_ENDS = re.compile(r"[ \t]*(?:\n|\Z)")
# What may stand before it on its line: nothing but Markdown, the end of a sentence, or blanked text.
_LEAD = re.compile(r"(?:^[ \t#*_•\-–—]{0,16}|[.!?;)\]…][ \t*_]{1,16}|\x00[ \t*_]{0,16})\Z", re.MULTILINE)
_LEAD_LENGTH = 32


def _statements(text: str, *, low: float, high: float) -> Iterator[_Statement]:
    for head in _HEAD.finditer(text):
        if not _LEAD.search(text, max(0, head.start() - _LEAD_LENGTH), head.start()):
            continue
        read = _read_number(text, head, low=low, high=high)
        if read is not None:
            verdict, end = read
            yield _Statement(start=head.start(), end=end, verdict=verdict, final=head["final"] is not None)


def _read_number(text: str, head: re.Match[str], *, low: float, high: float) -> tuple[Verdict, int] | None:
    """The verdict that begins with the number of `head` and where it ends; None when it does not stand on its own."""
    end = head.end()
    total = _TOTAL.match(text, end)
    end = total.end() if total else end
    totals = {float(number) for number in (head["scale"], total["total"] if total else None) if number}
    if totals - {high} or _PER_CENT.match(text, end):
        return Verdict(unscored=Unscored.OTHER_SCALE), end
    if _RANGE.match(text, end):
        return Verdict(unscored=Unscored.CONFLICTING), end
    points = _POINTS.match(text, end)
    end = points.end() if points else end
    # A number on the line below "Score:" is the verdict when it is alone there, and not the "1." of a list.
    below = "\n" in head.group()
    if not (_LINE_ENDS if below else _CLOSED).match(text, end):
        return None
    score = float(head["number"].replace("−", "-"))
    if not low <= score <= high:
        return Verdict(unscored=Unscored.OUT_OF_RANGE), end
    return Verdict(score=score), end


# What opens another item: a speaker or a heading on a line of its own, a prompt block, a chat control token that
# is not an end.
_NEXT_ITEM = re.compile(
    r"^[ \t#*_\-]{0,8}(?:(?:the|next|new|second|another)[ \t])?"
    r"(?:user|human|assistant|system|prompt|question|query|instruction|conversation|task|example|item|response|answer)"
    r"(?:[ \t]to[ \t]grade)?(?:[ \t]?#?(?:[0-9]{1,4}|[A-Z]))?[ \t*_]{0,8}(?::|$)"
    r"|<(?:user|assistant|system|prompt|response\w{0,2})(?:-[0-9a-f]{6})?>"
    r"|<[|｜](?!\w{0,16}(?:end|eot|eos))|\[INST\]|<start_of_turn>",
    re.IGNORECASE | re.MULTILINE,
)

# --- What does not count as the judge's own words: blanked, so that positions stay what they were ------------------

_REASONING_TAG = re.compile(r"<(/?)(?:think|thinking|thought|reasoning|reflection|scratchpad)>", re.IGNORECASE)
_BLOCK_TAG = re.compile(r"<(/?)(?:user|assistant|system|prompt|response\w{0,2})(?:-[0-9a-f]{6})?>", re.IGNORECASE)
_QUOTATIONS = (
    re.compile(r"^```.*?(?:^```|\Z)", re.DOTALL | re.MULTILINE),
    re.compile(r"^[ \t]{0,3}>.*$", re.MULTILINE),
    re.compile(r"“[^“”]{0,4000}”|«[^«»]{0,4000}»|„[^„“”]{0,4000}[“”]"),
    re.compile(r"`[^`\n]{1,1000}`"),
    re.compile(r"(?<!\w)['‘][^'‘’\n]{1,1000}['’](?!\w)"),
)
_ONE_LINE_QUOTATION = re.compile(r'"[^"\n]{0,4000}"')
_QUOTATION = re.compile(r'"[^"]{0,4000}"')


def _blank(match: re.Match[str]) -> str:
    return _blanked(match.group())


def _blanked(text: str) -> str:
    return re.sub(r"[^\n]", "\x00", text)


def _blank_quotations(text: str) -> str:
    for pattern in _QUOTATIONS:
        text = pattern.sub(_blank, text)
    # An odd number of straight quotes cannot be paired across lines (a sign for inches, a quotation left open).
    return (_ONE_LINE_QUOTATION if text.count('"') % 2 else _QUOTATION).sub(_blank, text)


def _blank_reasoning(text: str) -> str:
    """Also when only the closing tag is there, because the chat template wrote the opening one."""
    return _blank_tagged(text, _REASONING_TAG, stray_close_blanks=True)


def _blank_blocks(text: str) -> str:
    return _blank_tagged(text, _BLOCK_TAG, stray_close_blanks=False)


def _blank_tagged(text: str, tag: re.Pattern[str], *, stray_close_blanks: bool) -> str:
    """Blanks from each outermost opening tag to its closing tag, or to the end when it is never closed."""
    pieces: list[str] = []
    depth, done, stray_end = 0, 0, 0  # everything before `done` is in `pieces`
    for found in tag.finditer(text):
        if not found[1]:
            if not depth:
                pieces.append(text[done : found.start()])
                done = found.start()
            depth += 1
        elif depth:
            depth -= 1
            if not depth:
                pieces.append(_blanked(text[done : found.end()]))
                done = found.end()
        elif stray_close_blanks:
            stray_end = found.end()
    pieces.append(_blanked(text[done:]) if depth else text[done:])
    whole = "".join(pieces)
    return _blanked(whole[:stray_end]) + whole[stray_end:]
