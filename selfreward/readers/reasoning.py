"""Detection of a thinking model's reasoning, the text between reasoning tags.

Often only one of the two tags is present: many chat templates write the opening tag into the prompt, so that only the
closing one is in the text, and truncation removes the closing one. A tag mentioned in quotation marks, or in the middle
of a sentence ("the </think> tag"), does not count. As in engines, tags do not nest: the first closing tag ends the
reasoning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

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
_IN_QUOTES = frozenset(("``", '""', "''", "“”", "‘’", "«»"))
# Harmony text decoded without control tokens: only the names of the channels remain.
_BARE_CHANNELS = re.compile(r"\s*analysis(?=[A-Z])(?:.*assistantfinal|.*)", re.DOTALL)
_NOTHING = re.compile(r"[\s\ufeff\u200b]*")


@dataclass(frozen=True)
class _Tag:
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
    response_start, open_kind = 0, None
    for tag in _tags(text):
        if tag.mentioned and not (tag.opens and open_kind is None):
            continue
        if open_kind is None and tag.opens and not tag.mentioned and tag.start == _after_blanks(text, response_start):
            open_kind = tag.kind
        elif not tag.opens and (tag.kind == open_kind or (open_kind is None and response_start == 0)):
            response_start, open_kind = tag.end, None
        elif open_kind is None:
            break
    return "" if open_kind else text[response_start:].strip()


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


def _tags(text: str) -> Iterator[_Tag]:
    for found in _TAG.finditer(text):
        action, _, kind = str(found.lastgroup).partition("_")
        yield _Tag(kind, action == "open", found.start(), found.end(), _is_mention(text, found))


def _is_mention(text: str, found: re.Match[str]) -> bool:
    before, after = text[max(0, found.start() - 2) : found.start()], text[found.end() : found.end() + 2]
    if before[-1:] + after[:1] in _IN_QUOTES:
        return True
    return bool(re.fullmatch(r"[a-z,] ", before) and re.match(r" [a-z]|[.,;:!?)]", after))


def _after_blanks(text: str, start: int) -> int:
    blanks = _NOTHING.match(text, start)
    return blanks.end() if blanks else start
