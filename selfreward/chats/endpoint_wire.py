"""Requests to an OpenAI-compatible server and their replies, as pure functions: bodies, keys, parsing."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selfreward.chats.endpoint_choices import choice_logprobs
from selfreward.readers import Unscored
from selfreward.recipe import EndpointSection
from selfreward.requests import ChatRequest, Reply

_SEED_MASK = 0x7FFFFFFF
# Additional tokens for a verdict in the server's own words, besides the opening.
_VERDICT_TOKENS = 16
# A conservative estimate for current tokenizers.
TOKENS_PER_BYTE = 1 / 3
# Part of the cache key: increased when the way of finding the choices changes.
_CHOICES_VERSION = 1


class LostAnswer(Exception):
    """No usable answer arrived, and another attempt may succeed. `paid`: the request may have been charged."""

    def __init__(self, cause: str, *, paid: bool, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.paid = paid
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The server refuses this request. `words` is its message, `about` the message with its codes, in lower case."""

    def __init__(self, status: int, words: str, *, about: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status
        self.about = about.lower()


@dataclass(frozen=True)
class Dialect:
    """The API variant that a server supports, inferred from its refusals."""

    limit: str = "max_tokens"
    many_draws: bool = True
    num_top_logprobs: int = 20  # 20, 5, or 0 for none

    def apply(self, body: Mapping[str, Any], *, n: int) -> dict[str, Any]:
        """Return the body for `n` replies in this dialect."""
        adapted = dict(body)
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

    def adapted(self, refusal: Refused, *, body: Mapping[str, Any]) -> "Dialect | None":
        """Return the dialect without the refused part of `body`; None when the refusal has another cause."""
        if refusal.status not in (400, 422):
            return None
        if "max_completion_tokens" in refusal.about and "max_tokens" in body:
            return replace(self, limit="max_completion_tokens")
        if "logprobs" in refusal.about and "top_logprobs" in body:
            return replace(self, num_top_logprobs=5 if self.num_top_logprobs > 5 else 0)
        if "n" in body and re.search(r"\bn\b|\bchoices?\b|\bcompletions?\b", refusal.about):
            return replace(self, many_draws=False)
        return None


_TOO_LONG = re.compile(
    r"context[ _-]?(length|window|size)|max_model_len|reduce the length"
    r"|\b(prompt|input|request|messages?)\b[^.]{0,40}\btoo (long|large)|maximum (input|prompt|sequence) length"
    r"|exceed[^.]{0,80}\bcontext\b"
)
_FILTERED = re.compile(r"content_filter|content_policy|responsibleaipolicy")


def skipped_reason(refusal: Refused) -> str | None:
    """Return the reason why this request alone cannot be served; None for other refusals."""
    if refusal.status not in (400, 413, 422):
        return None
    if _TOO_LONG.search(refusal.about):
        return Unscored.TOO_LONG.value
    return Unscored.REFUSED.value if _FILTERED.search(refusal.about) else None


def without_lone_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 files and most servers cannot represent."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def chat_body(request: ChatRequest, section: EndpointSection, *, draw: int) -> dict[str, Any]:
    """Return the request body for this reply alone. A null in `extra_body` removes a key."""
    body: dict[str, Any] = {
        "model": section.model,
        "messages": [
            {"role": message.role, "content": without_lone_surrogates(message.content)} for message in request.messages
        ],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "seed": (request.seed + draw) & _SEED_MASK,
    }
    if request.temperature > 0 and request.top_p < 1:
        body["top_p"] = request.top_p
    if request.choices:
        body["max_tokens"] += _VERDICT_TOKENS + math.ceil(_num_bytes(request.opening) * TOKENS_PER_BYTE)
        body |= {"logprobs": True, "top_logprobs": Dialect.num_top_logprobs}
    if request.json_schema is not None:
        form = {"name": "reply", "schema": request.json_schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return {key: value for key, value in {**body, **section.extra_body}.items() if value is not None}


def draw_key(url: str, body: Mapping[str, Any], request: ChatRequest) -> str:
    """Return the sha256 of the address, of the body for this reply alone, and of how the reply is parsed."""
    how = [_CHOICES_VERSION, request.opening, request.choices, request.max_tokens == 0] if request.choices else []
    canonical = json.dumps([url, body, *how], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def prompt_bytes(body: Mapping[str, Any]) -> int:
    """Return the UTF-8 bytes of all parts of the prompt, from which prompt tokens are estimated."""
    prompt_parts = [body["messages"], body.get("response_format"), body.get("tools")]
    return _num_bytes(json.dumps(prompt_parts, ensure_ascii=False))


def worst_tokens(body: Mapping[str, Any], *, tokens_per_byte: float = TOKENS_PER_BYTE) -> tuple[int, int]:
    """Return the estimated prompt tokens and the maximum generated tokens of all replies to `body`."""
    num_prompt = math.ceil(prompt_bytes(body) * tokens_per_byte)
    limits = [body[key] for key in ("max_tokens", "max_completion_tokens") if isinstance(body.get(key), int)]
    return num_prompt, body.get("n", 1) * max(limits, default=0)


def used_tokens(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the prompt and generated tokens that the server counted, if it did."""
    usage = answer.get("usage")
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")] if isinstance(usage, Mapping) else []
    if len(counts) != 2 or not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return counts[0], counts[1]  # type: ignore[return-value]


def read_replies(answer: Mapping[str, Any], request: ChatRequest) -> list[Reply]:
    """Return one reply for each choice of the answer, at least one. Raises LostAnswer."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise LostAnswer(f"the answer has no choices{_error_in(answer)}", paid=True)
    if not all(isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping) for choice in choices):
        raise LostAnswer("the answer has a choice without a message", paid=True)
    if any(choice.get("finish_reason") in ("abort", "error") for choice in choices):
        raise LostAnswer("the server aborted the answer", paid=True)
    indices = [choice.get("index") for choice in choices]
    if sorted(indices, key=str) == sorted(range(len(choices)), key=str):
        choices = sorted(choices, key=lambda choice: int(choice["index"]))
    return [_read_reply(choice, request) for choice in choices]


def _error_in(answer: Mapping[str, Any]) -> str:
    """Return the error in an answer with status 200, as some gateways send it."""
    error = answer.get("error")
    return f": {error.get('message')}" if isinstance(error, Mapping) else ""


def _read_reply(choice: Mapping[str, Any], request: ChatRequest) -> Reply:
    message = choice["message"]
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        return Reply(skipped=Unscored.REFUSED.value)
    return Reply(
        text=without_lone_surrogates(_text(message.get("content"))),
        finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
        choice_logprobs=choice_logprobs(choice.get("logprobs"), request) if request.choices else (),
    )


def _text(content: Any) -> str:
    """Return the text of the content, which excludes reasoning; a few servers return the content in parts."""
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else ()
    return "".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))
