"""The tools of a conversation as data sets write them, read as turns: the tools on offer, calls, and their results."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from selfreward.prompts.unusable import UnusableRow, described, require_text
from selfreward.records import TOOL, TOOL_CALLS, TOOLS, Message

CALLS: Final = ("tool_calls", "function_call")
"""The keys of an assistant's turn that contain calls."""

_SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
_ADVICE = "a call is {name, arguments}, in OpenAI's form or as JSON text; correct or remove the row"


def calls_of(turn: Mapping[str, Any]) -> Any:
    """Return the calls of an assistant's turn as they are written; None without any."""
    return next((turn[key] for key in CALLS if turn.get(key) not in (None, "", [], {})), None)


def calls_turn(value: Any, where: str) -> Message:
    """Return the turn of a call, or of a list of calls, in any form. Raises UnusableRow."""
    found = _parsed(value, where)
    calls = [_call(call, number, where) for number, call in enumerate(found if isinstance(found, list) else [found])]
    if not calls:
        raise UnusableRow("tool_turn", f"{where} has no call", _ADVICE)
    return _turn(TOOL_CALLS, calls, where)


def tools_turn(value: Any, where: str) -> Message | None:
    """Return the turn of the tools on offer, each as `{"type": "function", "function": {...}}`; None without any."""
    if value in (None, "", [], {}):
        return None
    found = _parsed(value, where)
    tools = [_tool(tool, where) for tool in (found if isinstance(found, list) else [found])]
    return _turn(TOOLS, tools, where) if tools else None


def in_order(turns: Sequence[Message], ids: Sequence[Any], where: str) -> list[Message]:
    """Return the turns with the results of calls in the order of the calls. `ids` are those that the turns name.

    Raises UnusableRow for a result that nothing was asked for.
    """
    ordered: list[Message] = []
    position = 0
    while position < len(turns):
        if turns[position].role != TOOL:
            ordered.append(turns[position])
            position += 1
            continue
        if not ordered or ordered[-1].role not in (TOOL_CALLS, "assistant"):
            raise UnusableRow(
                "tool_turn", f"{where} has the result of a tool that was not called", "correct or remove the row"
            )
        end = next((at for at in range(position, len(turns)) if turns[at].role != TOOL), len(turns))
        results = list(zip(ids[position:end], turns[position:end], strict=True))
        if ordered[-1].role == TOOL_CALLS:
            place = {call["id"]: number for number, call in enumerate(json.loads(ordered[-1].content))}
            named = [name for name, _ in results]
            if all(name in place for name in named):
                results.sort(key=lambda result: place[result[0]])
            elif any(name is not None for name in named):
                raise UnusableRow(
                    "tool_turn", f"{where} has the result of a call that was not made", "correct or remove the row"
                )
            if len(results) != len(place):  # the k-th result is that of the k-th call
                raise UnusableRow(
                    "tool_turn",
                    f"{where} has {len(place)} calls and {len(results)} results",
                    "every call needs its result, unless the conversation ends with it; correct or remove the row",
                )
        ordered += [turn for _, turn in results]
        position = end
    return _with_short_ids(ordered)


def _with_short_ids(turns: Sequence[Message]) -> list[Message]:
    """Return the turns with new ids of calls; ids of nine letters and digits, which some templates demand, stay."""
    number = 0
    renamed: list[Message] = []
    for turn in turns:
        calls = json.loads(turn.content) if turn.role == TOOL_CALLS else []
        for call in calls:
            if not _SHORT_ID.fullmatch(call["id"]):
                call["id"] = f"call{number:05}"
            number += 1
        renamed.append(Message(turn.role, json.dumps(calls, ensure_ascii=False)) if calls else turn)
    return renamed


def _call(call: Any, number: int, where: str) -> dict[str, Any]:
    call = _parsed(call, where)
    inner = call.get("function") if isinstance(call, Mapping) and isinstance(call.get("function"), Mapping) else call
    if not isinstance(inner, Mapping) or not isinstance(name := inner.get("name"), str) or not name.strip():
        raise UnusableRow("tool_turn", f"{where} calls {described(call)}", _ADVICE)
    arguments: Any = next((inner[key] for key in ("arguments", "parameters") if inner.get(key) is not None), {})
    if isinstance(arguments, str):
        arguments = _json(arguments, default=arguments)
    given = call.get("id")
    return {
        "name": name,
        "arguments": _without_nulls(arguments),
        "id": given if isinstance(given, str) and given else str(number),
    }


def _tool(tool: Any, where: str) -> dict[str, Any]:
    tool = _parsed(tool, where)
    inner = tool.get("function") if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping) else tool
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        advice = (
            "a tool is {name, description, parameters}, in OpenAI's form or as JSON text; correct or remove the row"
        )
        raise UnusableRow("tool_turn", f"{where} offers {described(tool)}", advice)
    return {"type": "function", "function": _without_nulls(dict(inner))}


def _parsed(value: Any, where: str) -> Any:
    if not isinstance(value, str):
        return value
    if (found := _json(value)) is None:
        raise UnusableRow("tool_turn", f"{where} has {described(value)}, which is not JSON", _ADVICE)
    return found


def _json(text: str, default: Any = None) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return default


def _without_nulls(value: Any) -> Any:
    """Leave out keys without a value: Arrow gives every mapping of a column the same keys."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _turn(role: str, content: list[dict[str, Any]], where: str) -> Message:
    try:
        text = json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableRow("tool_turn", f"{where} cannot be written as JSON ({error})", _ADVICE) from None
    return Message(role, require_text(text, where))
