"""Selection of the verdict among a judge's statements, shared by the parsers of written verdicts."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selfreward.readers import languages
from selfreward.readers.normalised_text import BLANK
from selfreward.readers.other_texts import OF_ANOTHER_TEXT, first_label_of_another_text, has_label, is_hypothetical
from selfreward.readers.verdicts import Unscored, Verdict
from selfreward.records import FinishReason


@dataclass(frozen=True)
class Statement:
    """One standalone verdict, from `start` to `end`.

    `final`: it calls itself final, total or overall. `formal`: it has the requested form, rather than being a sentence.
    """

    start: int
    end: int
    verdict: Verdict
    final: bool = False
    formal: bool = True


def decide(
    statements: Sequence[Statement],
    text: str,
    *,
    finish_reason: FinishReason,
    continues: bool,
    opening_pattern: re.Pattern[str],
    comparing: bool,
) -> Verdict:
    """Return the verdict of `text`, given its statements; `opening_pattern` matches the beginning of another statement.

    Of different verdicts the last one counts if the judge revises the earlier ones, or calls the last one final, and if
    nothing between them is about another text; otherwise they are conflicting (they contradict each other) or
    ambiguous (they may be about different texts). `comparing`: the judge compares two texts.
    """
    if not statements:
        return nothing_stated(text, finish_reason=finish_reason)
    if continues:
        return Verdict(unscored=Unscored.CONTINUED)
    if finish_reason == "length" and _more_to_come(statements, text, opening_pattern):
        return Verdict(unscored=Unscored.TRUNCATED)
    last = statements[-1]
    if not comparing and _is_of_another_text(statements, text):
        return Verdict(unscored=Unscored.AMBIGUOUS)
    others = [other for other in statements[:-1] if other.verdict != last.verdict]
    if any(_contradicts(other, last, text) for other in others):
        return Verdict(unscored=Unscored.CONFLICTING)
    if others and not _is_revised(others, last, text):
        return Verdict(unscored=Unscored.CONFLICTING if comparing else Unscored.AMBIGUOUS)
    if comparing and _is_off_topic(text, last.end):
        return Verdict(unscored=Unscored.CONTINUED)
    return last.verdict


def nothing_stated(text: str, *, finish_reason: FinishReason) -> Verdict:
    """Return the verdict of a text without a statement, which may be empty."""
    if finish_reason == "length":
        return Verdict(unscored=Unscored.TRUNCATED)
    return Verdict(unscored=Unscored.NO_VERDICT if text.strip() else Unscored.EMPTY_VERDICT)


def _more_to_come(statements: Sequence[Statement], text: str, opening_pattern: re.Pattern[str]) -> bool:
    """Whether a truncated text might have continued with another verdict."""
    last = statements[-1]
    rest = text[last.end :]
    if not rest.strip("*_. \t"):
        return True  # "Score: 1" may be the beginning of "Score: 10" or 1.5
    if opening_pattern.match(rest, rest.rfind("\n") + 1):
        return True
    return not last.final and any(other.formal and other.verdict != last.verdict for other in statements)


# Beginnings of a sentence that reverses an earlier statement.
_TURNING = (
    r"(?:(?:hm+|well|oh|ok(?:ay)?|no|wait|sorry)[,.…!–—-]{0,3}[ \t]{1,4}){0,3}"
    r"(?:however|but|nevertheless|nonetheless|wait|correction|on (?:second thought|reflection|the other hand)"
    rf"|actually|instead|still|yet|rather|no(?=,)|reconsider|{languages.TURN})(?:(?![^\W_])|(?={languages.CJK}))"
)
_TURN = re.compile(rf"(?:^[ \t#*_\-]{{0,8}}|[.!?][\"*_)]{{0,4}}[ \t]{{1,4}}){_TURNING}", re.IGNORECASE | re.MULTILINE)
# No words between two statements except a remark in brackets: "Score: 5 (relevance)\nScore: 3 (style)".
_ADJACENT = re.compile(r"(?:\([^()\n]{0,80}\)|\W)*+")


def last_reversal(text: str) -> int:
    """Return the position of the text's last reversal of an earlier statement; -1 if there is none."""
    return max((turn.start() for turn in _TURN.finditer(text)), default=-1)


def _contradicts(other: Statement, last: Statement, text: str) -> bool:
    """Whether nothing can explain that they differ: `other` is final, they are adjacent, or a sentence differs from the
    requested form."""
    adjacent = _ADJACENT.fullmatch(text, other.end, last.start) is not None
    return other.final or (adjacent and not last.final) or (other.formal and not last.formal)


def _is_revised(others: Sequence[Statement], last: Statement, text: str) -> bool:
    """Whether `last` revises the `others`, which differ from it, or is the total of them."""
    first, start, end = others[0].start, others[0].end, last.start
    if is_hypothetical(text, start, end):
        return False
    if last.final:
        # Points below headings have a total; a verdict without a heading, and then a text with one, do not.
        return not has_label(text, start, end) or has_label(text, 0, first)
    if is_reversal(text, end):
        return True
    return _TURN.search(text, others[-1].end, end) is not None and not has_label(text, start, end)


def _is_of_another_text(statements: Sequence[Statement], text: str) -> bool:
    """Whether a verdict after the label of another text ("Improved response:") differs from the one before it."""
    label = first_label_of_another_text(text)
    before = {statement.verdict for statement in statements if statement.start < label}
    after = {statement.verdict for statement in statements if statement.start >= label}
    return bool(after) and before != after


# --- The beginning of a statement ----------------------------------------------------------------------------------

# At the beginning of a line or a sentence, or after blanked text.
_SYMBOLS = "\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_PLAIN_LEAD = (
    rf"(?:^[ \t#*_•|\-–—{_SYMBOLS}]{{0,16}}[\[(]?|[.!?;)\]…][\"*_]{{0,4}}[ \t*_]{{1,16}}|{BLANK}[ \t*_]{{0,16}})"
)
_LEAD_IN = (
    r"(?:so|thus|therefore|hence|overall|finally|as a result|for (?:this|these) reasons?"
    r"|in (?:total|all|sum|short|conclusion|summary)|to (?:conclude|sum up|summari[sz]e)"
    rf"|{languages.LEAD_IN}"
    r"|in this (?:case|example|comparison)|(?:I|we)(?: would)? (?:think|believe|conclude|find|say)(?: that)?"
    r"|(?:based on|given|considering|according to|after) [^.!?:;\n]{1,80}),?[ \t]{1,4}(?:that[ \t])?"
    r"|(?:(?:here is|this is|the|my|final|overall)[ \t]){0,3}(?:verdict|answer|result|conclusion|decision|evaluation"
    r"|grade|grading|judge?ment|assessment|explanation|summary)(?:[ \t]is)?[*_]{0,3}:[ \t*_]{0,4}"
)
# After another clause: "It is short, but on the whole the score is 4."
_CLAUSE = r"[,;][ \t](?:but|so|thus|therefore|hence),?[ \t](?:(?:in general|in the end|overall|on the whole),?[ \t])?"
_TURN_IN = rf"{_TURNING}[,:]?[ \t*_]{{1,4}}"
_PLAIN = re.compile(rf"{_PLAIN_LEAD}\Z", re.MULTILINE)
_LED = re.compile(
    rf"(?:{_PLAIN_LEAD}(?:[0-9]{{1,2}}[.)][ \t])?(?:{_TURN_IN}|{_LEAD_IN})|{_CLAUSE})\Z", re.IGNORECASE | re.MULTILINE
)
_TURNED = re.compile(rf"(?:{_PLAIN_LEAD}{_TURN_IN}|[,;][ \t]but[ \t])\Z", re.IGNORECASE | re.MULTILINE)
_LEAD_LENGTH = 128
# After a clause of CJK text, whose clauses are separated by commas; not after a condition or an attribution.
_CJK_LEAD = re.compile(
    rf"(?:\A|[.!?;\n])(?:(?!{languages.CONDITION}|写道|声称|要求|主張|と書)[^.!?;\n]){{1,100}}(?<={languages.CJK})"
    rf"{languages.NO_CONDITION_BEFORE}, \Z"
    rf"|(?:\A|[.!?;,\n])[ \t]{{0,4}}{languages.LEAD_IN}\Z"
)
# A sentence cannot be distinguished in a text without spaces.
_WITHOUT_SPACES = re.compile(r"\S{200,201}[ \t]?\Z")


def is_standalone_at(text: str, start: int) -> bool:
    """Whether the text before `start` allows a standalone statement to begin there."""
    if _PLAIN.search(text, max(0, start - 32), start) or _WITHOUT_SPACES.match(text, max(0, start - 201), start):
        return True
    lead = text[max(0, start - _LEAD_LENGTH) : start]
    if lead[-1:] in (" ", "*", "_", "\t") and _LED.search(text, max(0, start - _LEAD_LENGTH), start):
        return True
    return not lead.isascii() and _CJK_LEAD.search(lead) is not None


def is_reversal(text: str, start: int) -> bool:
    """Whether a statement that begins at `start` reverses an earlier one."""
    return _TURNED.search(text, max(0, start - _LEAD_LENGTH), start) is not None


# "Score: 5 - that is what the response asks for", "Score: 5, as it claims."
_ATTRIBUTED = (
    r"[.,;:!(–—\s-]{1,8}(?:(?:this|that|it|which)(?:[ \t]is|'s)[ \t](?:just[ \t]|only[ \t])?)?(?:what|as)[ \t]"
    r"(?:it|(?:the|this)[ \t](?:response|assistant|answer|author|user|text))[ \t](?:itself[ \t])?"
    r"(?:asks?|asked|claims?|says?|wants?|demands?|requests?|suggests?|writes?|wrote|states?)"
    r"(?:[ \t]for|[ \t]me[ \t]to[ \t]\w+)?[ \t]*(?=[.,;:!)\n]|\Z)"
)
# What may follow a statement: nothing, the end of its sentence, or a reason; not a condition or an attribution.
CLOSED = re.compile(
    rf"(?!{_ATTRIBUTED})(?:"
    r"\Z|[ \t]*\n|<[|｜/]|[.!;:。]{1,3}[\"*_)]{0,4}(?:\s|\Z)"
    r"|(?:[,;–—-]{1,2}[ \t\n]+|[ \t]?\()(?!(?:if|unless|were|had|assuming|provided|only if|or)\b"
    rf"|{languages.CONDITION}|{OF_ANOTHER_TEXT})"
    rf"|[ \t]?(?:(?:because|since|as (?:it|the|both|this)|due to)\b|{languages.BECAUSE})"
    r"|[ \t]?[\u2600-\u27bf\u2b50\U0001f300-\U0001faff]{1,16}[ \t]*(?:\n|\Z))",
    re.IGNORECASE,
)


# --- The beginning of another item ---------------------------------------------------------------------------------

# A speaker or a heading on a line of its own, a prompt block, a chat control token that is not an end, a system prompt,
# a piece of work that is announced.
_ABOUT = (
    r"[ \t*_]{0,8}:[ \t*_]{0,8}(?:the|this)[ \t]response[ \t](?:directly|clearly|correctly|is|was|has|does|provides"
    r"|gives|answers|addresses|covers|lacks|fails|could|should)\b"
)
_NEXT_ITEM = re.compile(
    r"^[ \t#*_\-]{0,8}(?:(?:the|next|new|second|another)[ \t])?"
    r"(?:user|human|assistant|system|prompt|question|query|instruction|conversation|task|example|item"
    r"|(?P<inputs>response|answer|judgment))"
    r"(?:[ \t]to[ \t]grade)?(?:[ \t]?#?(?:[0-9]{1,4}|(?P<letter>[A-Z])))?"
    rf"(?:(?P<about>{_ABOUT})|[ \t*_]{{0,8}}(?::|$))"
    r"|^[ \t#*_\-]{0,8}part[ \t][0-9]{1,2}[ \t*_]{0,8}(?::|$)"
    r"|^You are (?:an?|the) [^.\n]{0,40}\b(?:assistant|AI|model)\b"
    r"|^Here(?:'s| is) an? (?:\w+[ \t]){0,3}"
    r"(?:version|rewrite|revision|text|response|answer|essay|story|poem)\b[^\n:]{0,200}:"
    r"|<(?:user|assistant|system|prompt|(?:response|judgment)\w{0,2})(?:-[0-9a-f]{6})?>"
    r"|<[|｜](?!\w{0,16}(?:end|eot|eos|return))|\[INST\]|<start_of_turn>",
    re.IGNORECASE | re.MULTILINE,
)
# A comparison refers to the compared texts: a paragraph without such a reference is off topic. (A judge that scores a
# single response may well discuss only its parts.)
_PARAGRAPH = re.compile(r"\n[ \t]*\n[^\n]*\w[^\n]*")
_REFERENCE = re.compile(
    r"\b(?:it|its|this|that|these|those|they|both|neither|response|answer|option|choice|judge?ments?|grader|assistant"
    r"|responses|answers|user|score\w*|points?|rating|grad\w+|explanation|reason\w*|because|overall|(?-i:A|B))\b",
    re.IGNORECASE,
)
_MIN_WORDS = 12


def another_item(text: str, start: int, last: int, *, finish_reason: FinishReason, comparing: bool = False) -> bool:
    """Whether the text continues with another item after `start`, the end of the first verdict; the last ends at
    `last`.

    A comparison may explain "Response A:" and so on, and "Response: The response is clear." explains the last verdict.
    A heading without a colon at the end of a truncated text may be the beginning of a sentence.
    """
    for item in _NEXT_ITEM.finditer(text, start):
        if finish_reason == "length" and item.end() == len(text) and item[0][-1:].isalnum():
            continue
        explains = item["letter"] if comparing else item["about"] and item.start() >= last
        if not (item["inputs"] and explains):
            return True
    return False


def _is_off_topic(text: str, start: int) -> bool:
    paragraphs = (found.group() for found in _PARAGRAPH.finditer(text, start))
    return any(len(p.split()) >= _MIN_WORDS and not _REFERENCE.search(p) for p in paragraphs)
