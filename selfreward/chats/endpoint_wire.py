"""What goes to an OpenAI-compatible server and what comes back, as pure functions: bodies, keys, replies."""

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
# Room for a verdict in a server's own words, beside the opening.
_VERDICT_TOKENS = 16
# An estimate on the safe side for the tokenizers of today.
TOKENS_PER_BYTE = 1 / 3
# With another way of finding the choices a kept reply would not be what it says.
_CHOICES_VERSION = 1


class LostAnswer(Exception):
    """No usable answer came, and another attempt may bring one. `paid`: it may have been paid all the same."""

    def __init__(self, cause: str, *, paid: bool, retry_after_s: float | None = None) -> None:
        super().__init__(cause)
        self.paid = paid
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """The server will not answer this request. `words` are its own, `about` also its codes, in small letters."""

    def __init__(self, status: int, words: str, *, about: str) -> None:
        super().__init__(f"{status}: {words}")
        self.status = status
        self.about = about.lower()


@dataclass(frozen=True)
class Dialect:
    """What a server understands; learnt from what it refuses."""

    limit: str = "max_tokens"
    many_draws: bool = True
    num_top_logprobs: int = 20  # 20, 5, or 0 for none

    def spoken(self, body: Mapping[str, Any], *, n: int) -> dict[str, Any]:
        """The body for `n` draws in this dialect."""
        said = dict(body)
        if self.limit != "max_tokens" and "max_tokens" in said:
            said.setdefault(self.limit, said.pop("max_tokens"))
        if n > 1:
            said["n"] = n
        if "top_logprobs" in said:
            said["top_logprobs"] = min(said["top_logprobs"], self.num_top_logprobs)
            if said["top_logprobs"] == 0:
                del said["top_logprobs"]
                said.pop("logprobs", None)
        return said

    def mended(self, refusal: Refused, *, body: Mapping[str, Any]) -> "Dialect | None":
        """The dialect without what was refused in `body`; None when the refusal is about something else."""
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
    """Why this one request cannot be served, where that says nothing about the others."""
    if refusal.status not in (400, 413, 422):
        return None
    if _TOO_LONG.search(refusal.about):
        return Unscored.TOO_LONG.value
    return Unscored.REFUSED.value if _FILTERED.search(refusal.about) else None


def whole(text: str) -> str:
    """Without half surrogates, which no UTF-8 file and few servers can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def chat_body(request: ChatRequest, section: EndpointSection, *, draw: int) -> dict[str, Any]:
    """What asks for this draw alone. A null in `extra_body` leaves a key out."""
    body: dict[str, Any] = {
        "model": section.model,
        "messages": [{"role": message.role, "content": whole(message.content)} for message in request.messages],
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
    """sha256 of the address, of the body that asks for this draw alone, and of what is read from the reply."""
    how = [_CHOICES_VERSION, request.opening, request.choices, request.max_tokens == 0] if request.choices else []
    canonical = json.dumps([url, body, *how], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _num_bytes(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def prompt_bytes(body: Mapping[str, Any]) -> int:
    """What prompt tokens are estimated from: the bytes (UTF-8) of all that a server makes a prompt of."""
    asked = [body["messages"], body.get("response_format"), body.get("tools")]
    return _num_bytes(json.dumps(asked, ensure_ascii=False))


def worst_tokens(body: Mapping[str, Any], *, tokens_per_byte: float = TOKENS_PER_BYTE) -> tuple[int, int]:
    """Prompt tokens (estimated) and generated tokens of all draws together (at most) that `body` can cost."""
    num_prompt = math.ceil(prompt_bytes(body) * tokens_per_byte)
    limits = [body[key] for key in ("max_tokens", "max_completion_tokens") if isinstance(body.get(key), int)]
    return num_prompt, body.get("n", 1) * max(limits, default=0)


def used_tokens(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Prompt and generated tokens that the server counted, if it did."""
    usage = answer.get("usage")
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")] if isinstance(usage, Mapping) else []
    if len(counts) != 2 or not all(isinstance(count, int) and count >= 0 for count in counts):
        return None
    return counts[0], counts[1]  # type: ignore[return-value]


def read_replies(answer: Mapping[str, Any], request: ChatRequest) -> list[Reply]:
    """One for each choice of the answer, at least one. Raises LostAnswer."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices:
        raise LostAnswer(f"the answer has no choices{_error_in(answer)}", paid=True)
    if not all(isinstance(choice, Mapping) and isinstance(choice.get("message"), Mapping) for choice in choices):
        raise LostAnswer("the answer has a choice without a message", paid=True)
    if any(choice.get("finish_reason") in ("abort", "error") for choice in choices):
        raise LostAnswer("the server broke off while it wrote the answer", paid=True)
    indices = [choice.get("index") for choice in choices]
    if sorted(indices, key=str) == sorted(range(len(choices)), key=str):
        choices = sorted(choices, key=lambda choice: int(choice["index"]))
    return [_read_reply(choice, request) for choice in choices]


def _error_in(answer: Mapping[str, Any]) -> str:
    """Some gateways answer 200 with an error inside."""
    error = answer.get("error")
    return f": {error.get('message')}" if isinstance(error, Mapping) else ""


def _read_reply(choice: Mapping[str, Any], request: ChatRequest) -> Reply:
    message = choice["message"]
    if choice.get("finish_reason") == "content_filter" or message.get("refusal"):
        return Reply(skipped=Unscored.REFUSED.value)
    return Reply(
        text=whole(_text(message.get("content"))),
        finish_reason="length" if choice.get("finish_reason") == "length" else "stop",
        choice_logprobs=choice_logprobs(choice.get("logprobs"), request) if request.choices else (),
    )


def _text(content: Any) -> str:
    """Reasoning stands beside the content and is no part of it; a few servers give the content in parts."""
    if isinstance(content, str):
        return content
    parts: Sequence[Any] = content if isinstance(content, list) else ()
    return "".join(part["text"] for part in parts if isinstance(part, Mapping) and isinstance(part.get("text"), str))
