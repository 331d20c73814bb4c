"""Detection of a thinking model's reasoning, the text between reasoning tags.

Often only one of the two tags is present: many chat templates write the opening tag into the prompt, so that only the
closing one is in the text, and truncation removes the closing one. A tag mentioned in quotation marks, or in the middle
of a sentence ("the </think> tag"), does not count. As in engines, tags do not nest: the first closing tag ends the
reasoning.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# (first character, opening, closing); <seed:think> is Seed's, [THINK] Mistral's, <|inner_prefix|> Apertus's,
# <|channel>thought Gemma's, and the last are the channels of harmony, of which only `final` is the response.
_KINDS = (
    *(("<", f"(?:seed:)?{name}>", f"/(?:seed:)?{name}>") for name in ("think", "thinking", "thought", "reasoning")),
    *(("<", f"{name}>", f"/{name}>") for name in ("reflection", "scratchpad")),
    ("[", r"(?-i:THINK\])", r"(?-i:/THINK\])"),
    ("◁", "think▷", "/think▷"),
    ("<", r"\|begin_of_thought\|>", r"\|end_of_thought\|>"),
    ("<", r"\|inner_prefix\|>", r"\|inner_suffix\|>"),
    ("<", r"\|channel>thought\b", r"channel\|>"),
    (
        "<",
        r"\|channel\|>(?:analysis|commentary)[^<\n]{0,80}<\|message\|>",
        r"\|channel\|>final[^<\n]{0,80}<\|message\|>",
    ),
)


def _tag_of(first: str, then: str) -> str:
    """Return a pattern of all tags that begin with `first` and one of the characters `then`."""
    tags = (
        f"(?P<open_{i}>{opening})|(?P<close_{i}>{closing})"
        for i, (begins, opening, closing) in enumerate(_KINDS)
        if begins == first
    )
    return f"(?<={re.escape(first)})(?={then})(?:{'|'.join(tags)})"


# The first two characters are searched for before anything else, which is many times as fast in text without tags.
_TAG = re.compile(
    rf"(?-i:[<\[◁])(?:{_tag_of('<', '[/strc|]')}|{_tag_of('[', '[/T]')}|{_tag_of('◁', '[/t]')})", re.IGNORECASE
)
_CLOSING = {
    str(i): re.compile(f"{re.escape(first)}{closing}", re.IGNORECASE) for i, (first, _, closing) in enumerate(_KINDS)
}
_IN_QUOTES = frozenset(("``", '""', "''", "“”", "‘’", "«»"))
_BEFORE_MENTION, _AFTER_MENTION = re.compile(r"[a-z,] "), re.compile(r" [a-z]|[.,;:!?)]")
# Harmony text decoded without control tokens: only the names of the channels remain.
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z])(?:.*assistantfinal|.*)", re.DOTALL)
_NOTHING = re.compile(r"[\s\ufeff\u200b]*")


class _Tag(NamedTuple):  # quick to make: a degenerate text has millions
    kind: str
    opens: bool
    start: int
    end: int
    mentioned: bool


def without_reasoning(text: str) -> str:
    """Return the text without reasoning, stripped; "" when the reasoning never ends.

    Reasoning comes first: tags after the beginning of the response are part of the response. A text that was truncated
    in reasoning opened by its chat template has no tag at all, and cannot be distinguished from a response.
    """
    bare = _BARE_CHANNELS.match(text)
    if bare:
        return text[bare.end() :].strip()
    start = 0
    while tag := next((tag for tag in _tags(text, start) if tag.opens or not tag.mentioned), None):
        if tag.opens and not tag.mentioned and tag.start == _after_blanks(text, start):
            end = _end_of_reasoning(text, tag)
            if end is None:
                return ""
            start = end
        elif not tag.opens and start == 0:
            start = tag.end
        else:
            break
    return text[start:].strip()


def _end_of_reasoning(text: str, opened: _Tag) -> int | None:
    closing = _CLOSING[opened.kind]
    return next((found.end() for found in closing.finditer(text, opened.end) if not _is_mention(text, found)), None)


def reasoning_spans(text: str) -> list[tuple[int, int]]:
    """Return (start, end) of all reasoning at any position, in order and without overlap.

    Stricter than `without_reasoning`, for parsers of verdicts: all text before a stray closing tag is reasoning.
    """
    bare = _BARE_CHANNELS.match(text)
    spans = [(0, bare.end())] if bare else []
    opened: _Tag | None = None
    nested = 0  # opening tags inside reasoning: that many closing tags are not stray
    for tag in _tags(text):
        if tag.mentioned:
            continue
        if opened is None:
            if tag.opens:
                opened = tag
            elif nested and spans:
                nested -= 1
                spans[-1] = (spans[-1][0], tag.end)
            else:
                spans = [(0, tag.end)]
        elif tag.kind == opened.kind:
            if tag.opens:
                nested += 1
            else:
                spans.append((opened.start, tag.end))
                opened = None
    return [*spans, (opened.start, len(text))] if opened else spans


def _tags(text: str, start: int = 0) -> Iterator[_Tag]:
    for found in _TAG.finditer(text, start):
        action, _, kind = str(found.lastgroup).partition("_")
        yield _Tag(kind, action == "open", found.start(), found.end(), _is_mention(text, found))


def _is_mention(text: str, found: re.Match[str]) -> bool:
    before, after = text[max(0, found.start() - 2) : found.start()], text[found.end() : found.end() + 2]
    if before[-1:] + after[:1] in _IN_QUOTES:
        return True
    return bool(_BEFORE_MENTION.fullmatch(before) and _AFTER_MENTION.match(after))


def _after_blanks(text: str, start: int) -> int:
    blanks = _NOTHING.match(text, start)
    return blanks.end() if blanks else start
