"""Requests to an OpenAI-compatible server, as pure functions: bodies, keys, and the size of what can come back."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfreward.chats.endpoint_dialect import Dialect
from selfreward.model_files.template_turns import template_turns
from selfreward.recipe import EndpointSection
from selfreward.records import Message
from selfreward.requests import ChatRequest

_SEED_MASK = 0x7FFFFFFF
# Additional tokens for a verdict in the server's own words, besides the opening.
_VERDICT_TOKENS = 16
# A conservative estimate for current tokenizers.
TOKENS_PER_BYTE = 1 / 3
# Part of the cache key: increased when the way of finding the choices changes.
_CHOICES_VERSION = 1
# Bounds on what can come back. The longest tokens of current vocabularies have 128 characters.
_CHARS_PER_TOKEN, _SPARE_CHARS = 128, 4096
_MAX_ESCAPED = 6  # \u1234
_LOGPROB_BYTES = 8192  # 20 alternatives of a token, with their bytes as numbers
_SPARE_BYTES, _MAX_BYTES = 2**20, 2**28
_TOKENS_WITHOUT_LIMIT = 32_768  # `extra_body` may remove the limit


def without_lone_surrogates(text: str) -> str:
    """Replace lone surrogates, which UTF-8 files and most servers cannot represent."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def chat_body(request: ChatRequest, section: EndpointSection, *, draw: int) -> dict[str, Any]:
    """Return the request body for this reply alone. A null in `extra_body` removes a key."""
    body: dict[str, Any] = {
        "model": section.model,
        "messages": _messages(request.messages),
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


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return a conversation in OpenAI's form. Tools on offer are not sent: a reply has to be text."""
    turns, _ = template_turns(
        [replace(message, content=without_lone_surrogates(message.content)) for message in messages],
        arguments_as_text=True,
    )
    return turns


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


def max_reply_chars(body: Mapping[str, Any]) -> int:
    """Return the length of the longest text that a reply to `body` can have: generous, as some tokens are long."""
    return _SPARE_CHARS + _CHARS_PER_TOKEN * _token_limit(body)


def max_answer_bytes(body: Mapping[str, Any]) -> int:
    """Return the size of the largest answer to `body`: its texts escaped, log-probabilities, and fields of any kind."""
    per_token = _MAX_ESCAPED * _CHARS_PER_TOKEN + (_LOGPROB_BYTES if body.get("logprobs") else 0)
    num_tokens: int = body.get("n", 1) * _token_limit(body)
    return min(_SPARE_BYTES + num_tokens * per_token, _MAX_BYTES)


def _token_limit(body: Mapping[str, Any]) -> int:
    """Return the maximum number of tokens of one reply."""
    limits = (body.get(key) for key in ("max_tokens", "max_completion_tokens"))
    return max((limit for limit in limits if isinstance(limit, int)), default=_TOKENS_WITHOUT_LIMIT)
