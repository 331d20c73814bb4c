"""What counts as the judge's own words. Everything else is blanked, so that positions stay what they were.

Not its own words: reasoning, quotations in the marks of several languages, code, quoted lines, a line that it
introduces as the response's ("It ends with:") or as the form that it was asked for, and prompt blocks that it repeats.
"""

import re
import unicodedata

from selfreward.readers.reasoning import reasoning_spans

BLANK = "\x00"

# Full-width forms and mathematical letters are how people see them; other digits and look-alikes are not read.
_FOLDED = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800))
    if len(unicodedata.normalize("NFKC", chr(code))) == 1
}
_SPACES = dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
# Nobody sees these. Direction overrides are seen, by what they do: they stay, and what they touch is not read.
_UNSEEN = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x61C, 0x2060, 0xFEFF, 0xFE0F))
_SEEN = {**_FOLDED, **_SPACES, **_UNSEEN}
_LINE_ENDS = re.compile("\r\n?|[\v\f\u0085\u2028\u2029]")
# Tags that some models put around what they answer.
_WRAPPING = re.compile(
    r"^[ \t]{0,8}<(?:answer|verdict)>|</(?:answer|verdict)>(?=[ \t]{0,8}$)", re.IGNORECASE | re.MULTILINE
)


def normalised(text: str) -> str:
    """One form of line ends, spaces and full-width letters; nothing invisible, no tags around it all, no BLANK."""
    return _WRAPPING.sub("", _LINE_ENDS.sub("\n", text).replace(BLANK, "\ufffd").translate(_SEEN))


def without_thoughts(text: str) -> str:
    """`text` with reasoning blanked; where it ends, what is said begins as on a new line."""
    pieces, done = [], 0
    for start, end in reasoning_spans(text):
        pieces += [text[done:start], _blanked(text[start : end - 1]), "\n"]
        done = end
    return "".join((*pieces, text[done:]))


def own_words(text: str) -> str:
    """`text`, as seen and without thoughts, with quotations blanked. Repeated blocks are still there."""
    text = _QUOTED_VALUE.sub(lambda found: f"{found[1]} {found[3]} ", text)
    for pattern in _QUOTATIONS:
        text = pattern.sub(_blank, text)
    text = _blank_tagged(text, _QUOTING_TAG, to_the_end=False)
    text = _SHAPED_QUOTATION.sub(_blank, text)
    # What is left can be paired across lines only when it is even (else a sign for inches, a quotation left open).
    text = (_ONE_LINE_QUOTATION if text.count('"') % 2 else _QUOTATION).sub(_blank, text)
    return _blank_introduced(text)


def outside_marks(text: str) -> str:
    """`text` with quotations blanked but those in straight marks, for a form that is made of straight marks."""
    return _blank_tagged(_SHAPED_MARKS.sub(_blank, text), _QUOTING_TAG, to_the_end=False)


def without_blocks(text: str) -> str:
    """`text` with repeated prompt blocks blanked."""
    return _blank_tagged(text, _BLOCK_TAG, to_the_end=True)


# `Score: "4"` and `The better response is "Response A"`: these marks do not quote anybody.
_QUOTED_VALUE = re.compile(
    r"([:=]|\bis)(?=[ \t*_]{1,8}[\"'`“‘])[ \t*_]{1,8}([\"'`“‘])"
    r"((?:[a-z]{1,9} )?(?-i:[A-Z])|[0-9]{1,3}(?:\.[0-9]{1,3})?(?:/[0-9]{1,3})?)[\"'`”’]",
    re.IGNORECASE,
)
_SHAPED_MARKS = re.compile(r"“[^“”]*”|«[^«»]*»|‹[^‹›]*›|„[^„“”]*[“”]|「[^「」]*」|『[^『』]*』")
_QUOTATIONS = (
    re.compile(r"```[^`\n]+```"),
    re.compile(r"^[ \t]{0,8}(```|~~~).*?(?:^[ \t]{0,8}\1|\Z)", re.DOTALL | re.MULTILINE),
    re.compile(r"^[ \t]{0,3}>.*$", re.MULTILINE),
    _SHAPED_MARKS,
    re.compile(r"`[^`\n]+`"),
    re.compile(r"(?<!\w)['‘][^'‘’\n]+['’](?!\w)"),
)
_SHAPED_QUOTATION = re.compile(r'(?<![^\s(\[{*_—–-])"(?=[^\s"])[^"]*(?<=\S)"(?!\w)')
_ONE_LINE_QUOTATION = re.compile(r'"[^"\n]*"')
_QUOTATION = re.compile(r'"[^"]*"')
_QUOTING_TAG = re.compile(r"<(/?)(?:blockquote|quote|q|pre|code)>", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    r"<(/?)(?:user|assistant|system|prompt|reference|own_response|(?:response|judgment)\w{0,2})(?:-[0-9a-f]{6})?>",
    re.IGNORECASE,
)
_INTRODUCED = re.compile(r"(?::|(?:the following|as follows)\.)[ \t*_]{0,8}\n\s{0,8}(?=([^\n]+))", re.IGNORECASE)
_ATTRIBUTION = re.compile(
    r"\b(?:it|response|assistant|answer|text|user|prompt|author)\b"
    r"(?:.*\b(?:says?|said|claims?|ends?|writes?|wrote|states?|reads?|concludes?|quotes?|adds?)\b"
    r"|.*\b(?:contain|include|insert|append|demand|request|ask)(?:s|ed)?\b[^.!?,;]*\Z)"
    r"|\b(?:form|format|template|example)\b[^.!?,;]*\b(?:is|was|be|like|as follows|the following)\Z"
    r"|\bfor example\Z|\b(?:asked|told|instructed|required) to\b[^.!?,;]*\Z",
    re.IGNORECASE,
)


def introduced(text: str, end: int) -> bool:
    """Whether the line up to `end`, where its colon is, ends as "The response says:" or "The form is:" does."""
    line = max(text.rfind("\n", 0, end) + 1, end - 120)
    return _ATTRIBUTION.search(text, line, end) is not None


def _blank_introduced(text: str) -> str:
    """Blanks the line below such a line."""
    pieces, done = [], 0
    for found in _INTRODUCED.finditer(text):
        if introduced(text, found.start()):
            pieces += [text[done : found.start(1)], _blanked(found[1])]
            done = found.end(1)
    return "".join((*pieces, text[done:]))


def _blank(match: re.Match[str]) -> str:
    return _blanked(match.group())


def _blanked(text: str) -> str:
    return re.sub(r"[^\n]", BLANK, text)


def _blank_tagged(text: str, tag: re.Pattern[str], *, to_the_end: bool) -> str:
    """Blanks from each outermost opening tag to its closing tag; `to_the_end` when it is never closed."""
    pieces: list[str] = []
    depth, done = 0, 0  # everything before `done` is in `pieces`
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
    pieces.append(_blanked(text[done:]) if depth and to_the_end else text[done:])
    return "".join(pieces)
