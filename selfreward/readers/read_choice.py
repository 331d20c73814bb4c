"""Parser of `The better response is Response A`: 1.0 for A, 0.0 for B, 0.5 when both are judged equally good.

As conservative as `read_score`. These standalone statements outside quotations are verdicts:

* The requested sentence, with any synonym of better, and common variants of it: `Better response: B`, `Winner: A`,
  `[[A]]`, `Tie`. Of several the last one counts; two that contradict each other are conflicting, unless the judge
  states between them that it has changed its mind, or calls the last one final.
* A sentence such as `Response A is better.` or `I prefer Response B.`, unless the text reverses it afterwards
  ("However, ..."); and a lone `Response A` on the last line. `Response A is better organised` is about one aspect
  only, `If brevity counts, Response A is better` is hypothetical; neither is a verdict.
* A letter that is not one of the choices is out of range; a single lower-case `a` is an article.
"""

import re
from functools import cache

from selfreward.readers import languages
from selfreward.readers.cleaned_text import blank_repeated_blocks, blank_shaped_quotations, cleaned_text, said_text
from selfreward.readers.fences import without_last_fence
from selfreward.readers.json_objects import standalone_objects, values_of
from selfreward.readers.normalised_text import without_box_tokens, without_markup
from selfreward.readers.statements import CLOSED, Statement, another_item, decide, is_standalone_at, last_reversal
from selfreward.readers.verdicts import NOTHING_STATED, Unscored, Verdict
from selfreward.records import FinishReason

_SCORES = {"A": 1.0, "B": 0.0}


def read_choice(text: str, *, finish_reason: FinishReason, what: str) -> Verdict:
    """Parse the verdict of a text that compares two of `what` ("response" or "judgment"). Never raises."""
    said = said_text(text)
    shown = without_markup(said)
    verdict = _read(shown, finish_reason=finish_reason, what=what)
    stated = _read(shown, finish_reason="stop", what=what)
    of_objects = _of_objects(said, what=what)
    if stated.unscored not in NOTHING_STATED:
        return verdict if of_objects <= {stated} else Verdict(unscored=Unscored.CONFLICTING)
    if of_objects:
        return of_objects.pop() if len(of_objects) == 1 else Verdict(unscored=Unscored.CONFLICTING)
    unfenced = without_last_fence(shown)
    return verdict if unfenced is None else _read(unfenced, finish_reason=finish_reason, what=what)


def _read(text: str, *, finish_reason: FinishReason, what: str) -> Verdict:
    cleaned = cleaned_text(text)
    shown = blank_repeated_blocks(cleaned)
    statements = _statements(shown, what)
    return decide(
        statements,
        shown,
        finish_reason=finish_reason,
        continues=bool(statements)
        and another_item(cleaned, statements[0].end, statements[-1].end, finish_reason=finish_reason, comparing=True),
        opening_pattern=_OPENING,
        comparing=True,
    )


_KEYS = (
    r"winner|better|best|choice|preferred|preference|verdict|decision|selected|selection|final_(?:verdict|decision|choice)"
    rf"|better_option|{languages.WINNER}|{languages.CJK_WINNER}|选择|選擇"
)
_WITHIN = frozenset(("evaluation", "result", "verdict", "judgment", "comparison", "output", "decision"))


def _of_objects(text: str, *, what: str) -> set[Verdict]:
    """Return the verdicts of the JSON objects in `text`: `{"winner": "A"}`."""
    shown = blank_repeated_blocks(blank_shaped_quotations(without_box_tokens(text)))
    keys = re.compile(rf"{_KEYS}|(?:better|best|preferred|winning|chosen)_{what}")
    values = [value for found, _, _ in standalone_objects(shown) for value in values_of(found, keys, within=_WITHIN)]
    read = (_read_value(value, what) for value in values if isinstance(value, str))
    return {verdict for verdict in read if verdict is not None}


def _read_value(value: str, what: str) -> Verdict | None:
    found = re.fullmatch(
        rf"[\[(\s]{{0,4}}(?:{what}|assistant|answer|option|judge)?[\s_-]?(?:(?P<letter>[A-Z])|tie|draw|equal|both|neither)[\])\s.]{{0,4}}",
        value,
        re.IGNORECASE,
    )
    return _verdict(found.groupdict()) if found else None


_MARK = r"[ \t*_]{0,8}"
_START = r"(?<![^\W_])"
# An underscore is Markdown, and CJK text has no spaces.
_OPEN = r"(?:\$?\\boxed[ \t]?\{|[\[(<]{0,2})"
_CLOSE = rf"(?!(?!{languages.CJK})[^\W_])[\])>}}$]{{0,2}}"
_BETTER = (
    r"(?:better|best|superior|stronger|strongest|preferred|preferable|winning|more (?:accurate|helpful|useful|correct)"
    r"|most (?:accurate|helpful|useful|correct))"
)
_FINAL = r"(?P<final>(?:(?:final|overall)[ \t]){1,2})?"
_HOW = (
    r"(?:the|a|bit|clearly|much|far|slightly|definitely|significantly|marginally|overall|indeed|certainly|generally"
    r"|typically|probably|likely)"
)
_IS = rf"(?:{_MARK}(?:[:=]|->|→)|{_MARK}[ \t](?:is|was|would be|goes to)(?=\W){_MARK}:?)"
_EQUALLY = (
    r"(?:equally (?:good|bad|strong|weak|poor|well done|accurate|helpful)|equal(?: in quality)?|tied|of equal quality)"
)
_OPENING = re.compile(
    r"[ \t#*_\-]{0,8}(?:(?:the|my)[ \t])?(?:final|overall|better|best|winner|verdict|preferred|th?\Z)", re.IGNORECASE
)


@cache
def _patterns(what: str) -> tuple[tuple[re.Pattern[str], bool], ...]:
    """Return the patterns, each with whether it is formal.

    Groups: `letter` or `capital` is the better one, neither of them for a tie; `other` is the worse one; `also` is one
    that may be as good; with `denied` the sentence contradicts itself.
    """
    author = {"response": "assistant|answer", "judgment": "judgement|judge|grader"}.get(what, what)
    words, cjk_words = languages.THINGS.get(what, (what, what))
    thing = rf"(?:{what}|{author}|{words})"
    article = r"(?:(?:the|die|das|der|la|le|el|a|o|il|lo|de|het)[ \t])?"
    called = rf"(?:{article}{thing}[ \t]|(?:{cjk_words})[ \t]?){_MARK}(?P<letter>[A-Z])"
    # A letter alone may be the answer to the user's question, so it must be clear what it refers to.
    named = rf"{_OPEN}(?:{called}|(?-i:(?P<capital>[A-Z]))){_CLOSE}"
    called = rf"{_OPEN}{called}{_CLOSE}"
    both = rf"(?:both|the two|they)(?:[ \t](?:{thing}s|of them))?"
    equal = rf"(?:{both}(?:[ \t]are)?[ \t])?{_EQUALLY}|{both}"
    tie = rf"[\[(]{{0,2}}(?:(?:a[ \t])?(?:tie|draw)|neither(?:[ \t]{what})?|{equal})[\])]{{0,2}}"
    best = rf"(?:{_HOW}[ \t]){{0,4}}(?:{_BETTER}(?:[ \t](?:{what}|one|option|choice|answer))?|winner)(?:[ \t]overall)?"
    loser = rf"(?:the[ \t])?(?:{what}[ \t])?(?P<other>[A-Z]\b|other(?:[ \t](?:{what}|one))?)"
    than = rf"(?:[ \t](?:than|over|to)[ \t]{loser})?"
    is_better = rf"{_MARK}(?:,[^,.\n]{{1,48}},)?[ \t](?:is|was)[ \t]{best}{than}"
    also = r"(?:[ \t]?\((?:or|and)|,?[ \t](?:but|and)[ \t]also)\b[^.\n]{0,40}?\b(?-i:(?P<also>[AB]))\b"
    said = rf"(?:{is_better}|{_MARK}{also}\)?|(?P<denied>{_MARK}[ \t](?:is|was)[ \t]not\b))?"
    the = r"(?:(?:the|my)[ \t])?"
    then = rf"{_IS}{_MARK}(?:\n[ \t]{{0,8}}){{0,2}}{_MARK}"
    of_all = r"(?:[ \t](?:overall|here|of the two))?"
    about = rf"(?:answer|choice|option|result|conclusion|{what})"
    is_it = r"(?:[ \t]?(?::|=|→|->)|[ \t](?:ist|est|es|é|è|is|это|—|–)(?=\W))"
    of_cjk = rf"(?:{languages.CJK_BETTER_THING}(?:{cjk_words}|[者方])?|{languages.CJK_WINNER})"
    other_cjk = rf"(?:{cjk_words})?[ \t]?(?P<other>[A-Z])"
    elsewhere = (
        rf"{article}(?:{languages.BETTER}[ \t]{thing}|{thing}[ \t]{languages.BETTER}|{languages.WINNER}){_MARK}{is_it}"
        rf"{_MARK}(?:{named}|{languages.TIE})",
        rf"{of_cjk}{_MARK}(?:[:=]|→|为|是|は|은|는|이|가){_MARK}(?:{named}(?:です|だ|입니다|이다)?|{languages.TIE}(?:です|입니다)?)",
    )
    elsewhere_in_sentences = (
        rf"{called}{_MARK}[ \t]{languages.IS_BETTER}(?:,?[ \t]{languages.THAN}[ \t](?:\w{{1,4}}[ \t])?{thing}[ \t]"
        r"(?P<other>[A-Z]))?",
        rf"{named}[ \t]?(?:比{other_cjk}[ \t]?)?{languages.CJK_VERY}{languages.CJK_BETTER}(?:了|一些|一点)?",
        rf"{named}[ \t]?{languages.CJK_VERY}(?:优于|優於|好于|胜过){other_cjk}",
        rf"{named}(?:{languages.JA_KO_BETTER})",
        rf"{languages.CJK_CHOOSE}[ \t]?{named}(?:更好|更佳|更优)?",
        rf"(?:两[个者]?|兩[個者]?|2つの)?[ \t]?(?:{cjk_words})?(?:都|は|은|는)?[ \t]?{languages.TIE}(?:です|입니다)?",
    )
    formal = (
        rf"{the}{_FINAL}{_BETTER}[ \t](?:{what}|one){of_all}{then}(?:{named}|{tie}){said}",
        rf"{the}{_FINAL}(?:verdict|winner|preference|decision|better|best){then}(?:{named}|{tie}){said}",
        rf"{the}{_FINAL}(?:{_BETTER}[ \t])?{about}{then}(?:{called}|{tie}){said}",
        r"\[\[(?:(?P<letter>[A-Z])|tie|draw)\]\]",
        *elsewhere,
    )
    informal = (
        rf"{named}{is_better}",
        rf"{named}{_MARK}[ \t]wins",
        rf"(?:{thing}[ \t])?(?-i:(?P<other>[AB]))[ \t]is not[ \t]{best},?[ \t]"
        rf"(?:(?:as|because|since|but)[ \t])?{named}[ \t]is",
        r"(?:I|we)(?:'d|[ \t](?:would|will))?[ \t](?:choose|prefer|pick|select|go with|vote for|favou?r)[ \t]"
        rf"{named}(?:[ \t](?:over|to)[ \t](?:{what}[ \t])?(?P<other>[A-Z]))?",
        rf"{both}[ \t]are(?:[ \t](?:about|roughly|overall))?[ \t]{_EQUALLY}",
        r"(?:it is|it's|this is)[ \t]a[ \t](?:tie|draw)",
        rf"neither(?:[ \t](?:of them|{what}|one))?[ \t]is[ \t]{best}{than}",
        rf"there(?:'s| is)[ \t]no[ \t]{_BETTER}[ \t](?:{what}|one)",
        *elsewhere_in_sentences,
    )
    alone = rf"^[ \t#*_\-]{{0,8}}(?:{named}|tie|draw|{languages.TIE}){_MARK}[.!]?{_MARK}\s*\Z"
    return (
        *((re.compile(pattern, re.IGNORECASE), True) for pattern in formal),
        *((re.compile(pattern, re.IGNORECASE), False) for pattern in informal),
        (re.compile(alone, re.IGNORECASE | re.MULTILINE), False),
    )


def _statements(text: str, what: str) -> list[Statement]:
    """Return the statements in order; of those that begin at the same position the first, and none inside another.

    A sentence that the text reverses afterwards does not count, nor does "Response A (or B)", unless there are no
    others and they disagree.
    """
    found = sorted(
        (
            (head.start(), not formal, -head.end(), head)
            for pattern, formal in _patterns(what)
            for head in pattern.finditer(text)
        ),
        key=lambda item: item[:3],
    )
    done, turn = 0, last_reversal(text)
    stated: list[Statement] = []
    standalone: list[Statement] = []
    for start, informal, _, head in found:
        if start < done or not _is_standalone(text, head):
            continue
        mark = _AFTER.match(text, head.end())
        done = mark.end() if mark else head.end()
        groups = head.groupdict()
        statement = Statement(start, done, _verdict(groups), final=bool(groups.get("final")), formal=not informal)
        stated.append(statement)
        is_retracted = informal and (done <= turn or _YIELDS.match(text, done))
        if not is_retracted and groups.get("also") in (None, _letter(groups)):
            standalone.append(statement)
    return standalone or (stated if len({statement.verdict for statement in stated}) > 1 else [])


# It may be followed by an echo of the formatting instruction.
_AFTER = re.compile(r"[ \t*_]{0,8}(?:on a (?:new |separate )?line(?: of its own)?)?[ \t*_]{0,8}")
# "Response A is better, but Response B is right."
_YIELDS = re.compile(
    r",?[ \t](?:but|although|though|however)\b[^.\n]{0,200}?\b(?-i:[AB])\b[ \t](?:is|was)\b", re.IGNORECASE
)


def _is_standalone(text: str, head: re.Match[str]) -> bool:
    if not (text[head.start() : head.start() + 1] in " \t#*_-" or is_standalone_at(text, head.start())):
        return False
    if head.groupdict().get("denied"):
        return True
    after = _AFTER.match(text, head.end())
    end = after.end() if after else head.end()
    return CLOSED.match(text, end) is not None or CLOSED.match(text, head.end()) is not None


def _letter(groups: dict[str, str | None]) -> str:
    return (groups.get("letter") or groups.get("capital") or "").upper()


def _verdict(groups: dict[str, str | None]) -> Verdict:
    letter = _letter(groups)
    if groups.get("denied") or (letter and letter == (groups.get("other") or "").upper()):
        return Verdict(unscored=Unscored.CONFLICTING)
    if not letter:
        return Verdict(score=0.5)
    return Verdict(score=_SCORES[letter]) if letter in _SCORES else Verdict(unscored=Unscored.OUT_OF_RANGE)
