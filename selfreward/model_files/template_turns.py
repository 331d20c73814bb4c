"""A conversation as chat templates read it: OpenAI's messages, with tool calls, results and the offered tools."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from selfreward.records import TOOL, TOOL_CALLS, TOOLS, Message
from selfreward.templates.blocks import encodable


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


def marked(messages: Sequence[Message]) -> tuple[list[Message], dict[str, str]]:
    """Return the conversation with other names of tools and calls and other results, and what each of them stands for.

    What a template leaves out of this conversation it leaves out of the given one.
    """
    turns: list[Message] = []
    marks: dict[str, str] = {}

    def mark(what: str) -> str:
        name = f"part_7261_{len(marks)}_"
        marks[name] = what
        return name

    for message in messages:
        if message.role == TOOLS:
            tools = json.loads(message.content)
            named = [{**tool, "function": {**tool["function"], "name": mark("a tool on offer")}} for tool in tools]
            turns.append(replace(message, content=json.dumps(named)))
        elif message.role == TOOL_CALLS:
            calls = [{**call, "name": mark("the call of a tool")} for call in json.loads(message.content)]
            turns.append(replace(message, content=json.dumps(calls)))
        else:
            is_result = message.role == TOOL
            turns.append(replace(message, content=mark("the result of a tool")) if is_result else message)
    return turns, marks


def _call(call: Mapping[str, Any], arguments_as_text: bool) -> dict[str, Any]:
    arguments = call["arguments"]
    as_given = json.dumps(arguments, ensure_ascii=False) if arguments_as_text else arguments
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": as_given}}


def silenced(message: Message) -> Message:
    """Return the turn with another text, to count what the template itself writes; JSON text stays."""
    return message if message.role in (TOOLS, TOOL_CALLS) else replace(message, content="x")
