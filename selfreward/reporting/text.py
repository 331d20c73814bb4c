"""Foreign text made safe to look at: what a model wrote can neither break a page nor disguise itself.

Characters that are invisible or that reorder their neighbours are replaced by a name that can be seen. Escaping
of HTML is left to Jinja2 (autoescape) and markupsafe; fences and code spans of Markdown are made here.
"""

import re
import unicodedata
from dataclasses import dataclass

from markupsafe import Markup

# Joiners stay: Persian, the Indic scripts and composed emoji cannot be written without them, and they reorder nothing.
_KEPT = frozenset("\n\t\u200c\u200d")
# Categories: controls, formats (bidi, zero width, tags), surrogates, private use, line and paragraph separators.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Blank glyphs that Unicode files under letters: they look like nothing, and are used to fake spaces.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_C0_NAMES = (
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI",
    "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
)  # fmt: skip
_BACKTICKS = re.compile("`+")
_BLANKS = re.compile(r"[ \t]+")


def mark_of(character: str) -> str | None:
    """What stands for a character that cannot be seen (ESC, U+202E, ...); None for one that can."""
    code = ord(character)
    if character in _KEPT:
        return None
    if code < 0x20:
        return _C0_NAMES[code]
    is_noncharacter = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    if is_noncharacter or character in _BLANK_LETTERS or unicodedata.category(character) in _HIDDEN_CATEGORIES:
        return f"U+{code:04X}"
    return None


def visible(text: str) -> str:
    """The text with every unseen character named; what is returned always encodes as UTF-8."""
    return "".join(f"⟦{mark}⟧" if (mark := mark_of(character)) else character for character in text)


@dataclass(frozen=True)
class Clipped:
    """The start of a text; `num_left_out` counts the characters of the source that are not shown."""

    text: str
    num_left_out: int

    @property
    def markup(self) -> Markup:
        """HTML: everything escaped, unseen characters as small labels."""
        return Markup("").join(_pieces(self.text))

    @property
    def note(self) -> str:
        """Says what is missing; empty when nothing is."""
        return f"… {self.num_left_out:,} more characters are not shown" if self.num_left_out else ""


def clip(text: str, max_shown: int) -> Clipped:
    """The longest start of `text` that shows `max_shown` characters at most; a label counts with all its letters."""
    shown = 0
    for position, character in enumerate(text):
        shown += len(mark_of(character) or character)
        if shown > max_shown:
            return Clipped(text[:position], len(text) - position)
    return Clipped(text, 0)


def _pieces(text: str) -> list[Markup]:
    pieces: list[Markup] = []
    plain_from = 0
    for position, character in enumerate(text):
        mark = mark_of(character)
        if mark is not None:
            pieces += [Markup.escape(text[plain_from:position]), Markup("<i>{}</i>").format(mark)]
            plain_from = position + 1
    return [*pieces, Markup.escape(text[plain_from:])]


def one_line(text: str, max_shown: int = 400) -> str:
    """For a place that holds one line: a name, a reason, a sentence."""
    flat = _BLANKS.sub(" ", text.replace("\n", " ↵ ")).strip()
    clipped = clip(flat, max_shown)
    return visible(clipped.text) + ("…" if clipped.num_left_out else "")


def code_span(text: str) -> str:
    """A Markdown code span that also holds inside a table: no backtick or pipe of the text ends it."""
    line = one_line(text, 120).replace("|", "¦") or "(empty)"
    ticks = "`" * (_longest_backticks(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def prose(text: str) -> str:
    """One line of plain Markdown: nothing in it is markup or an entity. M_1 stays as it is, a_word_ does not."""
    return re.sub(r"([\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", one_line(text, 900))


def fenced(clipped: Clipped) -> str:
    """A Markdown code block which nothing inside can close."""
    shown = visible(clipped.text)
    fence = "`" * max(3, _longest_backticks(shown) + 1)
    return f"{fence}text\n{shown}\n{fence}" + (f"\n{clipped.note}" if clipped.note else "")


def _longest_backticks(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)
