"""Conversations in the forms of the field, read as turns: OpenAI's, ShareGPT's, content in parts, HH's transcripts."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from selfreward.prompts.tool_turns import calls_of, calls_turn, in_order, tools_turn
from selfreward.prompts.unusable import UnusableRow, described, require_text
from selfreward.records import TOOL, TOOL_CALLS, TOOLS, Message

ROLES: Final = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model", "bot"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "ipython"), TOOL),
    **dict.fromkeys(("function_call", "tool_call", "tool_calls"), TOOL_CALLS),
    "tools": TOOLS,
}
"""The roles that data sets use, and what they mean here."""

_TEXT_PARTS: Final = ("text", "input_text", "output_text", None)
_TRANSCRIPT: Final = re.compile(r"\n\n(Human|Assistant):[ ]?")  # the form of Anthropic's HH


def read_turns(value: Any, name: str) -> tuple[Message, ...]:
    """Return the turns of a conversation, without an empty system turn; a text is one turn of the user.

    A list may be written as JSON text, as tables have it. Turns of tools are read into the form of `Message`. Raises
    UnusableRow.
    """
    if isinstance(value, str):
        value = _turns_of_text(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        advice = "a prompt must be text or a list of messages; correct the row"
        raise UnusableRow("wrong_type", f"{name!r} is {described(value)}", advice)
    turns: list[Message] = []
    ids: list[Any] = []
    for number, turn in enumerate(value, start=1):
        read = _messages(turn, f"{name!r} message {number}")
        turns += read
        ids += [turn.get("tool_call_id") if isinstance(turn, Mapping) else None] * len(read)
    for position, turn in enumerate(turns):
        if position and (turn.role == "system" or (turn.role == TOOLS and turns[position - 1].role != "system")):
            raise UnusableRow(
                "turns_out_of_order",
                f"{name!r} has a {turn.role} turn that is not the first",
                "put it first or remove it",
            )
    return tuple(in_order(turns, ids, repr(name)))


def require_question(turns: Sequence[Message], name: str) -> None:
    """Raise UnusableRow unless the turns end with a user turn, or with the result of a tool."""
    if not turns:
        raise UnusableRow(
            "empty_prompt", f"{name!r} has no message", "a prompt must end with a user turn; remove the row"
        )
    if turns[-1].role not in ("user", TOOL):
        raise UnusableRow(
            "last_turn_not_user",
            f"the last turn of the prompt in {name!r} is from the {turns[-1].role}",
            "a prompt must end with a user turn or the result of a tool, to which the policy responds; remove what "
            "follows it",
        )


def _turns_of_text(text: str) -> list[Any]:
    if text.lstrip().startswith("[{"):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):  # a text that begins like a list
            value = None
        if isinstance(value, list) and value and all(_is_turn(turn) for turn in value):
            return value
    start, *parts = _TRANSCRIPT.split(text)
    if parts and not start:
        turns = [{"role": r.lower(), "content": c} for r, c in zip(parts[::2], parts[1::2], strict=True)]
        return turns if turns[-1]["content"].strip() else turns[:-1]  # a prompt ends with "Assistant:"
    return [{"role": "user", "content": text}]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and bool({"role", "from"} & value.keys())


def _role(turn: Mapping[str, Any]) -> str | None:
    name = _first(turn, "role", "from")
    return ROLES.get(name.strip().lower()) if isinstance(name, str) else None


def _first(turn: Mapping[str, Any], *keys: str) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _messages(turn: Any, where: str) -> list[Message]:
    """Return the turns of one message: none for an empty system turn, two for a text with calls after it."""
    if not isinstance(turn, Mapping):
        advice = "a message must be {role, content} or {from, value}; correct the row"
        raise UnusableRow("wrong_type", f"{where} is {described(turn)}", advice)
    if (role := _role(turn)) is None:
        found = f"{where} has the role {_first(turn, 'role', 'from')!r:.60}"
        raise UnusableRow("wrong_type", found, f"roles are {', '.join(ROLES)}; rename it or remove the row")
    content = _first(turn, "content", "value", "text")
    calls = calls_of(turn)
    if role == TOOL_CALLS:
        return [calls_turn(content if calls is None else calls, where)]
    if role == TOOLS:
        return [offered] if (offered := tools_turn(content, where)) else []
    if content is None and (role == "system" or calls is not None):
        content = ""
    text = _text(content, where)
    if not text.strip() and role != TOOL:
        if role != "system" and calls is None:
            raise UnusableRow("empty_prompt", f"{where} is empty", "every turn needs some text; remove the row")
        return [calls_turn(calls, where)] if calls is not None else []
    return [Message(role, text), *([calls_turn(calls, where)] if calls is not None else [])]


def _text(content: Any, where: str) -> str:
    """Return the text of a message's content; parts of text are joined by line ends, as vLLM joins them."""
    if isinstance(content, list):
        return "\n".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise UnusableRow(
            "wrong_type", f"{where} has the content {described(content)}", "content must be text; correct the row"
        )
    return require_text(content, where)


def _part(part: Any, where: str) -> str:
    if isinstance(part, Mapping):
        kind, text = part.get("type"), part.get("text")
        if kind in _TEXT_PARTS and isinstance(text, str):
            return require_text(text, where)
        raise UnusableRow(
            "not_text", f"{where} has a part of the type {kind!r:.40}", "parts must be text; remove the row"
        )
    return _text(part, where)
