"""The choices' log-probabilities in a server's reply, which cannot be forced to begin with the opening.

They are read at the token after the last opening, if that token is one of the choices. Without an opening, and if no
free text was requested, they are read at the first token that is a choice, if it begins the reply or if the reply
contains no other choice. Otherwise the position would be a guess: there are then no log-probabilities, and judges parse
the text.
"""

import math
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.requests import ChatRequest

# White space, Markdown, and the symbols that some tokenizers use for a space.
_BARE = string.whitespace + "\u00a0*_`#~▁Ġ"
_BLANKS = f"[{re.escape(_BARE)}]*"
# Letters and digits of scripts that put spaces between words.
_LETTER = r"[^\W_\u2e80-\U0010ffff]"
# After "4": the token is the beginning of "4th", "42" or "4.5", and not a choice.
_CONTINUES = re.compile(rf"{_LETTER}|[.,][0-9]")
_IS_CONTINUATION = re.compile(rf"(?:{_LETTER}|[0-9][.,])\Z")
_THOUGHT = "</think>"
# vLLM's value for -inf.
_MINUS_INFINITY = -9999.0
_ROUNDING = 1e-3


@dataclass(frozen=True)
class _Token:
    """A token of the reply; `start` and `end` are its position in the text of all tokens."""

    text: str
    start: int
    end: int
    alternatives: frozenset[tuple[str, float | None]]

    @property
    def bare(self) -> str:
        return self.text.strip(_BARE)


def choice_logprobs(logprobs: Any, request: ChatRequest) -> tuple[float, ...]:
    """Return one log-probability for each of `request.choices`; empty when the reply has no position to read them.

    A choice that the server did not list has -inf; where it listed one without a usable number, there is no position to
    read. `logprobs` is the server's field of one reply, of any type. Probabilities of tokens that differ from a choice
    only in white space are summed.
    """
    tokens = list(_tokens(logprobs))
    text = "".join(token.text for token in tokens)
    token = _verdict_token(tokens, text, request)
    if token is None or not token.alternatives:
        return ()
    if any(value is None and text.strip(_BARE) in request.choices for text, value in token.alternatives):
        return ()
    return tuple(_log_sum(token.alternatives, choice) for choice in request.choices)


def _log_sum(alternatives: frozenset[tuple[str, float | None]], choice: str) -> float:
    """Return log sum_i exp(logprob_i) over the tokens that are `choice`."""
    own = (value for text, value in alternatives if text.strip(_BARE) == choice)
    values = [value for value in own if value is not None and value > _MINUS_INFINITY]
    if not values:
        return -math.inf
    top = max(values)
    return min(top + math.log(math.fsum(math.exp(value - top) for value in values)), 0.0)


def _tokens(logprobs: Any) -> Iterator[_Token]:
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    start = 0
    for entry in content if isinstance(content, list) else ():
        token = _pair(entry)
        if token is None:
            continue
        others = entry.get("top_logprobs")
        pairs = [_pair(other) for other in others] if isinstance(others, list) else []
        seen = frozenset(pair for pair in pairs if pair)
        # The token itself may not be among the most probable ones; alone it gives no probabilities of the others.
        yield _Token(token[0], start, start + len(token[0]), seen | {token} if seen else seen)
        start += len(token[0])


def _pair(entry: Any) -> tuple[str, float | None] | None:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("token"), str):
        return None
    return entry["token"], _logprob(entry.get("logprob"))


def _logprob(value: Any) -> float | None:
    """Return a natural log-probability, perhaps -inf; None for anything else. Rounding may make it positive."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value) or value > _ROUNDING:
        return None
    return float(value)


def _verdict_token(tokens: Sequence[_Token], text: str, request: ChatRequest) -> _Token | None:
    """Return the token at whose position the choices are compared."""
    begin = text.rfind(_THOUGHT) + len(_THOUGHT) if _THOUGHT in text else 0
    if "<think>" in text[begin:]:
        return None  # truncated while it was thinking
    opening = _opening(request.opening)
    ends = [match.end() for match in opening.finditer(text, begin)] if opening else []
    begin = ends[-1] if ends else begin
    visible = [token for token in tokens if text[max(token.start, begin) : token.end].strip(_BARE)]
    candidates = [token for token in visible if token.start >= begin and _is_choice(token, text, request.choices)]
    if not candidates:
        return None
    first = candidates[0]
    if first is visible[0]:
        return first if ends or request.max_tokens == 0 else None
    is_the_only_one = all(token.bare == first.bare for token in candidates)
    return first if not ends and request.max_tokens == 0 and is_the_only_one else None


def _opening(opening: str) -> re.Pattern[str] | None:
    """Return a pattern for the words and signs of the opening, with any white space and Markdown between them."""
    parts = [part for part in re.findall(r"[^\W_]+|[^\w\s]", opening) if part.strip(_BARE)]
    return re.compile(_BLANKS.join(re.escape(part) for part in parts)) if parts else None


def _is_choice(token: _Token, text: str, choices: Sequence[str]) -> bool:
    """Return whether the token is a standalone choice, not part of a longer word or number."""
    if token.bare not in choices:
        return False
    start = text.index(token.bare, token.start)
    is_inside = _IS_CONTINUATION.search(text[max(start - 2, 0) : start])
    return not is_inside and not _CONTINUES.match(text, start + len(token.bare))
