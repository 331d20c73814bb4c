"""A conversation as chat templates read it: OpenAI's messages, with tool calls, results and the offered tools."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from selfreward.records import TOOL, TOOL_CALLS, TOOLS, Message


def has_tools(messages: Sequence[Message]) -> bool:
    return any(message.role in (TOOLS, TOOL_CALLS, TOOL) for message in messages)


def template_turns(
    messages: Sequence[Message], *, arguments_as_text: bool = False
) -> tuple[list[dict[str, Any]], list[Any] | None]:
    """Return the messages and the offered tools, None without any.

    Templates expect the arguments of a call as an object, a few of them as JSON text. The k-th result after the calls
    is that of the k-th call.
    """
    turns: list[dict[str, Any]] = []
    tools: list[Any] | None = None
    open_calls: Iterator[Mapping[str, Any]] = iter(())
    for message in messages:
        content = encodable(message.content)
        if message.role == TOOLS:
            tools = json.loads(content)
        elif message.role == TOOL_CALLS:
            calls = [_call(call, arguments_as_text) for call in json.loads(content)]
            if not turns or turns[-1]["role"] != "assistant":
                turns.append({"role": "assistant", "content": ""})
            turns[-1]["tool_calls"] = calls
            open_calls = iter(calls)
        elif message.role == TOOL:
            call = next(open_calls, None)
            of_call = {"name": call["function"]["name"], "tool_call_id": call["id"]} if call else {}
            turns.append({"role": "tool", "content": content, **of_call})
        else:
            turns.append({"role": message.role, "content": content})
    return turns, tools


def missing_in(text: str, messages: Sequence[Message]) -> str | None:
    """Return what of a conversation with tools a template left out of its text; None when all is there."""
    for message in messages:
        if message.role == TOOL and message.content.strip() and not _is_in(message.content.strip(), text):
            return "the result of a tool"
        names = [_name(each) for each in json.loads(message.content)] if message.role in (TOOLS, TOOL_CALLS) else []
        if any(name not in text for name in names):
            return "the tools that are offered" if message.role == TOOLS else "the call of a tool"
    return None


def _is_in(content: str, text: str) -> bool:
    """Return whether a result is in the text, as it is or as a JSON text."""
    written = (json.dumps(content, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
    return any(form in text for form in (content, *written))


def _name(each: Any) -> str:
    """Return the name of a call or of an offered tool; "" when it has none."""
    inner = each.get("function", each) if isinstance(each, dict) else {}
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _call(call: Mapping[str, Any], arguments_as_text: bool) -> dict[str, Any]:
    arguments = call["arguments"]
    as_given = json.dumps(arguments, ensure_ascii=False) if arguments_as_text else arguments
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": as_given}}


def encodable(text: str) -> str:
    """Replace lone surrogates, legal in JSON but not in UTF-8, by a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
