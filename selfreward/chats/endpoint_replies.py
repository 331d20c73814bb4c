"""The replies in a server's answer: every field is checked, and one that cannot be used never loses the text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from selfreward.chats.endpoint_choices import choice_logprobs
from selfreward.chats.endpoint_refusals import Garbled, error_in
from selfreward.chats.endpoint_wire import without_lone_surrogates
from selfreward.readers import Unscored
from selfreward.requests import ChatRequest, Reply

# The words of OpenAI, Anthropic, Gemini, Bedrock, Mistral, Zhipu, Cohere; some add the filter's reason after a colon.
_TRUNCATED = re.compile(r"(length|max_(output_|completion_)?tokens|model_length|max_length|token_limit)\b")
_BLOCKED = re.compile(
    r"content[_ -]?filter|safety|prohibited|recitation|blocklist|spii|guardrail|refus|sensitive|moderat|toxic|flagged"
)
_BROKEN = re.compile(r"(abort|error|cancel)")
_REFUSED = Reply(skipped=Unscored.REFUSED.value)
_TEXT_PARTS = (None, "text", "output_text")
# No model reads or writes more tokens in one request.
_MAX_COUNT = 10**8


def read_replies(answer: Mapping[str, Any], request: ChatRequest, *, n: int, max_chars: int) -> list[Reply]:
    """Return one reply for each usable choice of the answer, at least one and at most `n`. Raises Garbled.

    An answer without choices, or a choice without a message, is how some servers refuse a prompt.
    """
    if "choices" not in answer or not isinstance(answer["choices"] or [], list):
        raise Garbled("the answer has no choices")
    choices = _in_order(answer["choices"] or [])[:n]
    if not choices:
        return [_REFUSED] * n
    read = [_read_reply(choice, request, max_chars) for choice in choices]
    replies = [reply for reply in read if reply is not None]
    if not replies:
        words = error_in(choices[0]).words if isinstance(choices[0], Mapping) and choices[0].get("error") else ""
        raise Garbled(f"the server aborted the answer{words and ': '}{words}")
    return replies


def used_tokens(answer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the prompt and generated tokens that the server counted; None without usable counts."""
    usage = answer.get("usage")
    if not isinstance(usage, Mapping):
        return None
    prompt, generated = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt, generated) if _is_count(prompt) and _is_count(generated) else None


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def _in_order(choices: Sequence[Any]) -> list[Any]:
    """Return the choices sorted by index, if each has its own; as they came otherwise."""
    by_index = {c["index"]: c for c in choices if isinstance(c, Mapping) and type(c.get("index")) is int}
    return [by_index[index] for index in sorted(by_index)] if len(by_index) == len(choices) else list(choices)


def _read_reply(choice: Any, request: ChatRequest, max_chars: int) -> Reply | None:
    """Return the reply of a choice; None when the server broke it off."""
    choice = choice if isinstance(choice, Mapping) else {}
    reason = choice.get("finish_reason")
    reason = reason[:100].strip().lower() if isinstance(reason, str) else ""
    message = choice.get("message")
    if _BROKEN.match(reason) or (message is None and choice.get("error")):
        return None
    if not isinstance(message, Mapping) or _BLOCKED.search(reason) or _is_refusal(message.get("refusal")):
        return _REFUSED
    text = _text(message.get("content"))
    if len(text) > max_chars:
        return Reply(skipped=Unscored.TOO_LARGE.value)
    return Reply(
        text=without_lone_surrogates(text),
        finish_reason="length" if _TRUNCATED.match(reason) else "stop",
        choice_logprobs=choice_logprobs(choice.get("logprobs"), request) if request.choices else (),
    )


def _is_refusal(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _text(content: Any) -> str:
    """Return the text of the content, which excludes reasoning; a few servers return the content in parts."""
    if isinstance(content, str):
        return content
    return "".join(_part(part) for part in content) if isinstance(content, list) else ""


def _part(part: Any) -> str:
    if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS:
        part = part.get("text")
    return part if isinstance(part, str) else ""
