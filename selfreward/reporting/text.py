"""Safe display of untrusted text: a model's text can neither break a page nor hide characters.

Invisible characters and characters that reorder their neighbours are replaced by a visible name. Jinja2 (autoescape)
and markupsafe escape HTML; this module makes the fences and code spans of Markdown.
"""

import re
import unicodedata
from dataclasses import dataclass

from markupsafe import Markup

# Joiners remain: Persian, the Indic scripts and composed emoji need them, and they reorder nothing.
_KEPT = frozenset("\n\t\u200c\u200d")
# Categories: controls, formats (bidi, zero width, tags), surrogates, private use, line and paragraph separators.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
# Blank glyphs that Unicode classifies as letters: they are invisible, and are used to fake spaces.
_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_C0_NAMES = (
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "HT", "LF", "VT", "FF", "CR", "SO", "SI",
    "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS", "US",
)  # fmt: skip
_BACKTICKS = re.compile("`+")
_BLANKS = re.compile(r"[ \t]+")


def visible_name(character: str) -> str | None:
    """Return the visible name of an invisible character (ESC, U+202E, ...); None for a visible one."""
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
    """Replace every invisible character by its name; the result always encodes as UTF-8."""
    return "".join(f"⟦{mark}⟧" if (mark := visible_name(character)) else character for character in text)


@dataclass(frozen=True)
class Clipped:
    """The start of a text; `num_left_out` counts the characters of the source that are not shown."""

    text: str
    num_left_out: int

    @property
    def markup(self) -> Markup:
        """The text as escaped HTML, with invisible characters as small labels."""
        return Markup("").join(_pieces(self.text))

    @property
    def note(self) -> str:
        """The number of characters left out, in words; empty when the text is complete."""
        return f"… {self.num_left_out:,} more characters are not shown" if self.num_left_out else ""


def clip(text: str, max_shown: int) -> Clipped:
    """Return the longest prefix of `text` that shows at most `max_shown` characters; a name counts all its letters."""
    shown = 0
    for position, character in enumerate(text):
        shown += len(visible_name(character) or character)
        if shown > max_shown:
            return Clipped(text[:position], len(text) - position)
    return Clipped(text, 0)


def _pieces(text: str) -> list[Markup]:
    pieces: list[Markup] = []
    plain_from = 0
    for position, character in enumerate(text):
        mark = visible_name(character)
        if mark is not None:
            pieces += [Markup.escape(text[plain_from:position]), Markup("<i>{}</i>").format(mark)]
            plain_from = position + 1
    return [*pieces, Markup.escape(text[plain_from:])]


def one_line(text: str, max_shown: int = 400) -> str:
    """Return the text on one line, for a name, a reason or a sentence."""
    flat = _BLANKS.sub(" ", text.replace("\n", " ↵ ")).strip()
    clipped = clip(flat, max_shown)
    return visible(clipped.text) + ("…" if clipped.num_left_out else "")


def code_span(text: str) -> str:
    """Return a Markdown code span that is also safe in a table: no backtick or pipe of the text ends it."""
    line = one_line(text, 120).replace("|", "¦") or "(empty)"
    ticks = "`" * (_longest_backticks(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def prose(text: str) -> str:
    """Return one line of plain Markdown with all markup and entities escaped. M_1 is unchanged, a_word_ is not."""
    return re.sub(r"([\\`*\[\]<>|~&$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", one_line(text, 900))


def fenced(clipped: Clipped) -> str:
    """Return a Markdown code block that nothing inside can close."""
    shown = visible(clipped.text)
    fence = "`" * max(3, _longest_backticks(shown) + 1)
    return f"{fence}text\n{shown}\n{fence}" + (f"\n{clipped.note}" if clipped.note else "")


def _longest_backticks(text: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(text)), default=0)
