"""A verdict inside a code fence: some judges put their whole text, or its last line, between fences."""

import re

from selfreward.readers.cleaned_text import is_attributed

_OPENING = re.compile(r"^[ \t]{0,8}(```|~~~)[^\n`~]{0,40}\n", re.MULTILINE)
_INLINE = re.compile(r"(?:\A|\n)[ \t*_]{0,8}`([^`\n]{1,80})`[ \t*_.]{0,8}\s*\Z")
_MAX_LINE = 120  # characters
# A sentence about a block, before a block: the block may be the response's.
_ABOUT_A_BLOCK = re.compile(
    r"\b(?:ends?|block|fence|code|snippet|box|line|contains?|includes?|says?|writes?|quotes?)\b[^\n]*\Z", re.IGNORECASE
)


def without_last_fence(text: str) -> str | None:
    """Return `text` without the fences around all of it, or around a last line; None when it has none.

    A block is the response's if the line before introduces it.
    """
    inline = _INLINE.search(text, max(0, len(text) - 400))
    if inline:
        return None if _is_introduced(text, inline.start()) else f"{text[: inline.start()]}\n{inline[1]}\n"
    fences = list(_OPENING.finditer(f"{text}\n"))
    body = text.rstrip()
    if not fences:
        return None
    closed = _is_closed(body, fences)
    whole = len(fences) == 1 + closed and not text[: fences[0].start()].strip()
    opening = fences[-1 - closed]
    inside = body[opening.end() :].removesuffix(opening[1]).strip()
    if not inside:
        return None
    if whole:
        return f"{inside}\n"
    if "\n" in inside or len(inside) > _MAX_LINE or opening[1] in inside or _is_introduced(text, opening.start()):
        return None
    return f"{text[: opening.start()]}\n{inside}\n"


def _is_closed(text: str, fences: list[re.Match[str]]) -> bool:
    """Whether the last fence closes the block of the one before it, at the end of the text."""
    return len(fences) > 1 and fences[-1].end() >= len(text) and text.endswith(fences[-1][1])


def _is_introduced(text: str, end: int) -> bool:
    before = text[:end].rstrip()
    if before.endswith(":"):
        return is_attributed(before, len(before) - 1)
    return _ABOUT_A_BLOCK.search(before, max(before.rfind("\n") + 1, len(before) - 120)) is not None
