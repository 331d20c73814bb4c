"""Normalisation of a judge's text: what a person does not see, or sees as the same, is made the same.

Line ends, spaces, full-width letters and CJK punctuation become ASCII; invisible characters are removed, and so are
tags and commands that only change how a text looks.
"""

import re
import unicodedata

BLANK = "\x00"

# Full-width forms and mathematical letters are folded to ASCII; other digits and look-alikes are not read.
_FOLDED = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (*range(0xFF01, 0xFF5F), *range(0x1D400, 0x1D800))
    if len(unicodedata.normalize("NFKC", chr(code))) == 1
}
_SPACES = dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " ")
# In CJK text no space follows the end of a sentence or a clause.
_PUNCTUATION = {ord(mark): f"{plain} " for mark, plain in zip("。｡！？；，、：", "..!?;,,:", strict=True)}
_BRACKETS = {ord(mark): plain for mark, plain in zip("【】〔〕《》〖〗", "[][]<>[]", strict=True)}
# Invisible characters, which have many kinds. Direction overrides change the visible text: they are kept, and text next
# to them is not read. A keycap is drawn around the digit before it.
_OVERRIDES = (0x202D, 0x202E)
_UNSEEN = dict.fromkeys(
    (
        *(0xAD, 0x34F, 0x61C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0, 0x20E3),
        *range(0x180B, 0x1810),
        *range(0x200B, 0x2010),
        *(code for code in range(0x202A, 0x202F) if code not in _OVERRIDES),
        *range(0x2060, 0x2070),
        *range(0xFE00, 0xFE10),
        *range(0xFFF9, 0xFFFC),
        *range(0xE0000, 0xE0200),
    )
)
_SEEN = {**_FOLDED, **_SPACES, **_PUNCTUATION, **_BRACKETS, **_UNSEEN}
_LINE_ENDS = re.compile("\r\n?|[\v\f\u0085\u2028\u2029]")
# Tags that some models put around their answer.
_WRAPPING = re.compile(
    r"^[ \t]{0,8}<(?:answer|verdict|output|final_answer)>|</(?:answer|verdict|output|final_answer)>(?=[ \t]{0,8}$)",
    re.IGNORECASE | re.MULTILINE,
)
_ESCAPED = re.compile(r"\\(?=[*_#~])")


def normalised(text: str) -> str:
    """Normalise line ends, spaces, punctuation and full-width letters; remove invisible characters, enclosing tags and
    BLANK."""
    text = _LINE_ENDS.sub("\n", text).replace(BLANK, "\ufffd").translate(_SEEN)
    return _ESCAPED.sub("", _WRAPPING.sub("", unicodedata.normalize("NFC", text)))


_BOX = re.compile(r"<\|begin_of_box\|>|<\|end_of_box\|>")
_NAMED_SCORE = re.compile(
    r"<(?P<final>final|overall|total)?_?(?:score|rating|grade|points)>\s{0,8}(?:score[ \t]?:[ \t]?)?", re.IGNORECASE
)
_NAMED_CHOICE = re.compile(
    r"<(?:winner|choice|preference|preferred|better|better_response|better_judgment|decision)>\s{0,8}", re.IGNORECASE
)
_END_OF_NAMED = re.compile(
    r"\s{0,8}</(?:(?:final_|overall_|total_)?(?:score|rating|grade|points)|winner|choice|preference|preferred|better"
    r"|better_response|better_judgment|decision)>",
    re.IGNORECASE,
)
_LINE_TAG = re.compile(
    r"<br[ \t]?/?>|</(?:p|div|li|h[1-6]|tr|ul|ol|section|body|html)>"
    r"|(?:^|(?<=>))[ \t]{0,8}<(?:p|div|li|h[1-6]|tr|ul|ol|section|body|html|article)(?:[ \t][^<>\n]{0,120})?>",
    re.IGNORECASE | re.MULTILINE,
)
_CELLS = re.compile(r"</t[dh]>\s{0,8}<t[dh](?:[ \t][^<>\n]{0,120})?>", re.IGNORECASE)
_STYLE_TAG = re.compile(
    r"</?(?:b|strong|i|em|u|span|font|mark|big|small|center|p|div|t[dhr]|table|sup|sub)"
    r"(?:[ \t][^<>\n]{0,120})?>",
    re.IGNORECASE,
)
_COMMAND = re.compile(r"\\(?:text(?:bf|it|rm|sf)?|math(?:bf|rm|it|sf)|fbox|emph|underline)[ \t]?\{([^{}\n]{0,80})\}")


def without_box_tokens(text: str) -> str:
    """Remove the control tokens that some models put around their answer."""
    return _BOX.sub("", text)


def without_markup(text: str) -> str:
    """Return the normalised `text` without tags and commands of style; `<score>4</score>` becomes `Score: 4`."""
    if "\\" in text:
        text = _COMMAND.sub(r"\1", text)
    if "<" not in text:
        return text
    text = _BOX.sub(lambda box: "\\boxed{" if "begin" in box[0] else "}", text)
    text = _NAMED_SCORE.sub(lambda tag: "Final score: " if tag["final"] else "Score: ", text)
    text = _END_OF_NAMED.sub("", _NAMED_CHOICE.sub("Winner: ", text))
    return _STYLE_TAG.sub("", _LINE_TAG.sub("\n", _CELLS.sub(" | ", text)))
