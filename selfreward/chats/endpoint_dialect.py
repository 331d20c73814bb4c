"""The variant of the chat-completions API that a server supports, inferred from its refusals."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfreward.chats.endpoint_refusals import ErrorReport, Refused

# Keys without which a request is still the same question, least important first, and what is lost without them.
SAMPLING_KEYS = {
    "seed": "the same request gives other replies",
    "top_p": "replies are sampled with the server's own top_p",
    "temperature": "replies are sampled at the server's own temperature",
}
_UNSUPPORTED = re.compile(
    r"unsupported|not (currently |yet )?support|doesn't support|unrecogni[sz]ed|unknown|unexpected|extra inputs"
    r"|extra fields|not (permitted|allowed|available|accepted|compatible|applicable|configurable|recogni[sz]ed|valid)"
    r"|only the default|only [0-9.]+ is (allowed|supported)|deprecated|no longer|incompatible|is fixed|only one\b"
    r"|(can ?not|can't) (both )?be (used|set|specified|changed|combined)|may only be set|must be (set to )?1\b"
    r"|not (accept|implemented|an? (valid|known))|\bomit(ted)?\b|\bremove\b"
    r"|additional propert|invalid (parameter|argument|field)s?\b"
)
# A value outside a range: the recipe's own value would be ignored in silence without the key.
_RANGE = re.compile(
    r"between|less than|greater than|at (most|least)|\brange\b|(above|below|exceeds) (the )?m(ax|in)|[<>≤≥]"
)
_BOTH = re.compile(r"\bboth\b|\bonly one\b|\bone of\b|together|simultaneous")


@dataclass(frozen=True)
class Dialect:
    """`left_out` are keys of `SAMPLING_KEYS` that the server does not know."""

    limit: str = "max_tokens"
    many_draws: bool = True
    num_top_logprobs: int = 20  # 20, 5, or 0 for none
    left_out: frozenset[str] = frozenset()

    def apply(self, body: Mapping[str, Any], *, n: int) -> dict[str, Any]:
        """Return the body for `n` replies in this dialect."""
        adapted = {key: value for key, value in body.items() if key not in self.left_out}
        if self.limit != "max_tokens" and "max_tokens" in adapted:
            adapted.setdefault(self.limit, adapted.pop("max_tokens"))
        if n > 1:
            adapted["n"] = n
        if "top_logprobs" in adapted:
            adapted["top_logprobs"] = min(adapted["top_logprobs"], self.num_top_logprobs)
            if adapted["top_logprobs"] == 0:
                del adapted["top_logprobs"]
                adapted.pop("logprobs", None)
        return adapted

    def refused_key(self, refusal: Refused, *, body: Mapping[str, Any]) -> str | None:
        """Return the key of `body` that the server does not support; None when the refusal has another cause."""
        if refusal.status not in (200, 400, 422):
            return None
        about = refusal.report.about
        is_unsupported = bool(_UNSUPPORTED.search(about)) and not _RANGE.search(about)
        if "max_tokens" in body and ("max_completion_tokens" in about or (is_unsupported and "max_tokens" in about)):
            return "max_tokens"
        if "logprobs" in about and "top_logprobs" in body:
            return "top_logprobs"
        key = next((key for key in _named_keys(refusal.report) if key in body), None)
        if key is not None:
            return key if is_unsupported else None
        return "n" if "n" in body and re.search(r"\bn\b|\bchoices?\b|\bcompletions?\b", about) else None

    def without(self, key: str) -> "Dialect":
        """Return the dialect for a server that does not support `key`, one that `refused_key` returned."""
        match key:
            case "max_tokens":
                return replace(self, limit="max_completion_tokens")
            case "top_logprobs":
                return replace(self, num_top_logprobs=5 if self.num_top_logprobs > 5 else 0)
            case "n":
                return replace(self, many_draws=False)
            case _:
                return replace(self, left_out=self.left_out | {key})


def _named_keys(report: ErrorReport) -> Iterator[str]:
    """Yield the sampling keys that an error names: as its parameter, else in the order of its sentences.

    Of two that exclude each other, the less important one comes first.
    """
    yield from (key for key in SAMPLING_KEYS if key in report.named)
    places = {key: re.search(rf"\b{key.replace('_', '[ _-]?')}\b", report.about) for key in SAMPLING_KEYS}
    found = [(place.start(), key) for key, place in places.items() if place]
    yield from (key for _, key in (found if _BOTH.search(report.about) else sorted(found)))
