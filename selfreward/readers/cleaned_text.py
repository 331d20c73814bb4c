"""Cleaning of a judge's text: everything that is not its own statement is blanked, which preserves positions.

Blanked are reasoning, quotations in the marks of several languages, code, quoted lines, a line that the judge
attributes to the response ("It ends with:") or introduces as the required format, and repeated prompt blocks.
"""

import re
import unicodedata

from selfreward.readers.reasoning import reasoning_spans

BLANK = "\x00"

# Full-width forms and mathematical letters are folded to ASCII; other digits and look-alikes are not read.
_FOLDED = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800))
    if len(unicodedata.normalize("NFKC", chr(code))) == 1
}
_SPACES = dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
# Invisible characters. Direction overrides change the visible text: they are kept, and text next to them is not read.
_UNSEEN = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x61C, 0x2060, 0xFEFF, 0xFE0F))
_SEEN = {**_FOLDED, **_SPACES, **_UNSEEN}
_LINE_ENDS = re.compile("\r\n?|[\v\f\u0085\u2028\u2029]")
# Tags that some models put around their answer.
_WRAPPING = re.compile(
    r"^[ \t]{0,8}<(?:answer|verdict)>|</(?:answer|verdict)>(?=[ \t]{0,8}$)", re.IGNORECASE | re.MULTILINE
)


def normalised(text: str) -> str:
    """Normalise line ends, spaces and full-width letters; remove invisible characters, enclosing tags and BLANK."""
    return _WRAPPING.sub("", _LINE_ENDS.sub("\n", text).replace(BLANK, "\ufffd").translate(_SEEN))


def blank_reasoning(text: str) -> str:
    """Blank the reasoning in `text`; the text after it begins as on a new line."""
    pieces, done = [], 0
    for start, end in reasoning_spans(text):
        pieces += [text[done:start], _blanked(text[start : end - 1]), "\n"]
        done = end
    return "".join((*pieces, text[done:]))


def cleaned_text(text: str) -> str:
    """Blank the quotations in `text`, which is normalised and without reasoning. Repeated blocks remain."""
    text = _QUOTED_VALUE.sub(lambda found: f"{found[1]} {found[3]} ", text)
    for pattern in _QUOTATIONS:
        text = pattern.sub(_blank, text)
    text = _blank_tagged(text, _QUOTING_TAG, to_the_end=False)
    text = _SHAPED_QUOTATION.sub(_blank, text)
    # The remaining marks are paired across lines only if their number is even (it is odd after an inch sign, for
    # example).
    text = (_ONE_LINE_QUOTATION if text.count('"') % 2 else _QUOTATION).sub(_blank, text)
    return _blank_introduced(text)


def blank_shaped_quotations(text: str) -> str:
    """Blank quotations except those in straight marks, for JSON, which itself uses straight marks."""
    return _blank_tagged(_SHAPED_MARKS.sub(_blank, text), _QUOTING_TAG, to_the_end=False)


def blank_repeated_blocks(text: str) -> str:
    """Blank repeated prompt blocks in `text`."""
    return _blank_tagged(text, _BLOCK_TAG, to_the_end=True)


# `Score: "4"` and `The better response is "Response A"`: these marks are not quotations.
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


def is_attributed(text: str, end: int) -> bool:
    """Whether the line up to its colon at `end` is an attribution such as "The response says:" or "The form is:"."""
    line = max(text.rfind("\n", 0, end) + 1, end - 120)
    return _ATTRIBUTION.search(text, line, end) is not None


def _blank_introduced(text: str) -> str:
    """Blank each line that follows an attribution."""
    pieces, done = [], 0
    for found in _INTRODUCED.finditer(text):
        if is_attributed(text, found.start()):
            pieces += [text[done : found.start(1)], _blanked(found[1])]
            done = found.end(1)
    return "".join((*pieces, text[done:]))


def _blank(match: re.Match[str]) -> str:
    return _blanked(match.group())


def _blanked(text: str) -> str:
    return re.sub(r"[^\n]", BLANK, text)


def _blank_tagged(text: str, tag: re.Pattern[str], *, to_the_end: bool) -> str:
    """Blank from each outermost opening tag to its closing tag, or with `to_the_end` to the end if it is never
    closed."""
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
