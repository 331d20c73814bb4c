"""The shapes of rows: which columns contain the prompt, and which the response that follows it in the data.

A row with several candidates has the shape of the first of `COLUMNS` that it has; docs/data.md lists them.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile
from typing import Any, Final

from selfreward.prompts.tool_turns import tools_turn
from selfreward.prompts.turns import read_turns, require_question
from selfreward.prompts.unusable import UnusableRow, described, require_text
from selfreward.recipe import Columns
from selfreward.records import TOOL_CALLS, TOOLS, Message

COLUMNS: Final = (
    "prompt", "messages", "conversations", "conversation", "instruction", "question", "query", "problem", "text",
    "chosen",
)  # fmt: skip
"""The columns that contain prompts, in order of precedence."""

INPUTS: Final = ("input", "context")
SYSTEMS: Final = ("system", "system_prompt")
RESPONSES: Final = ("output", "response", "completion")
_MEDIA: Final = ("image", "images", "video", "videos", "audio", "audios")
_SHOWN_COLUMNS = 12


@dataclass(frozen=True)
class Conversation:
    """A prompt, the name of its shape, and the response that follows it in the data ("" for none).

    `used` are the columns that were read.
    """

    shape: str
    messages: tuple[Message, ...]
    response: str
    used: frozenset[str]


def with_known_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not null; a column whose name differs only in case also counts as the known one."""
    there = {key: value for key, value in row.items() if value is not None}
    return there | {lower: value for key, value in there.items() if (lower := key.strip().lower()) not in there}


def read_conversation(row: Mapping[str, Any], columns: Columns, nulls: Collection[str] = ()) -> Conversation:
    """Find the prompt of a row, whose values are not null; `nulls` are its other columns. Raises UnusableRow."""
    name = columns.prompt or next((name for name in COLUMNS if name in row), None)
    if name is None or name not in row:
        raise _no_prompt(row, columns.prompt, nulls)
    _refuse_media(row)
    value, used = row[name], {name}
    earlier: tuple[Message, ...] = ()
    if isinstance(value, str):
        value, earlier = _with_input(value, row, columns, used, is_alpaca=name == "instruction")
    turns, shape = _with_tools((*earlier, *read_turns(value, name)), row, used), name
    if name == "chosen" and "rejected" in row:
        shape = "chosen and rejected"
        used.add("rejected")
        turns = common_turns(turns, _with_tools(read_turns(row["rejected"], "rejected"), row, used))
    elif "from" in _keys(value):
        shape = f"{name} (ShareGPT)"
    elif more := sorted(used - {name}):
        shape = f"{name} and {' and '.join(more)}"
    turns, response = _split_response(turns)
    require_question(turns, name)
    if (system := columns.system or _first(SYSTEMS, row)) and turns[0].role != "system":
        used.add(system)
        content = require_text(row.get(system, ""), repr(system))
        turns = (Message("system", content), *turns) if content.strip() else turns
    if not response and (found := _first(RESPONSES, row)):
        response = response_text(row[found], found)
        used.add(found)
    return Conversation(shape, turns, response, frozenset(used))


def common_turns(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Message, ...]:
    """Return the turns that two conversations share, which is the prompt of both. Raises UnusableRow without any."""
    both = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    if not (common := tuple(turn for turn, _ in both)):
        raise UnusableRow(
            "empty_prompt", "'chosen' and 'rejected' begin with different turns", "both must begin with the prompt"
        )
    return common


def response_text(value: Any, name: str) -> str:
    """Return a response that is a text, one message of the assistant, or the end of a conversation; "" if it is none.

    Raises UnusableRow for invalid Unicode and for messages that cannot be read.
    """
    if isinstance(value, str):
        return require_text(value, repr(name))
    if isinstance(value, Mapping | list) and _keys(value) & {"role", "from"}:
        turns = read_turns(value, name)
        return turns[-1].content if turns and turns[-1].role == "assistant" else ""
    return ""


def _with_input(
    text: str, row: Mapping[str, Any], columns: Columns, used: set[str], *, is_alpaca: bool
) -> tuple[str, tuple[Message, ...]]:
    """Return the text with the row's `input` after it, and the turns of Alpaca's `history`; add to `used`."""
    earlier: list[Message] = []
    if (name := columns.input or (_first(INPUTS, row) if is_alpaca else None)) and name in row:
        used.add(name)
        text = "\n".join(part for part in (text, require_text(row[name], repr(name))) if part.strip())
    if is_alpaca and isinstance(row.get("history"), list):
        used.add("history")
        for number, pair in enumerate(row["history"], start=1):
            earlier += _exchange(pair, number)
    return text, tuple(earlier)


def _exchange(pair: Any, number: int) -> tuple[Message, Message]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise UnusableRow(
            "wrong_type", f"'history' entry {number} is {described(pair)}", "it must be [question, response]"
        )
    question, response = (require_text(text, f"'history' entry {number}") for text in pair)
    return Message("user", question), Message("assistant", response)


def _with_tools(turns: tuple[Message, ...], row: Mapping[str, Any], used: set[str]) -> tuple[Message, ...]:
    """Return the turns with those tools that the row offers in a column of its own, after the system turn."""
    offered = tools_turn(row.get(TOOLS), repr(TOOLS))
    if offered is None or any(turn.role == TOOLS for turn in turns):
        return turns
    used.add(TOOLS)
    num_before = int(bool(turns) and turns[0].role == "system")
    return (*turns[:num_before], offered, *turns[num_before:])


def _split_response(turns: tuple[Message, ...]) -> tuple[tuple[Message, ...], str]:
    """Return the prompt and the text that an assistant says after it; "" where the response is the call of a tool."""
    is_call = bool(turns) and turns[-1].role == TOOL_CALLS
    turns = turns[:-1] if is_call else turns
    if not turns or turns[-1].role != "assistant":
        return turns, ""
    return turns[:-1], "" if is_call else turns[-1].content


def _refuse_media(row: Mapping[str, Any]) -> None:
    if found := _first(_MEDIA, row):
        raise UnusableRow("not_text", f"it has {found!r}", "prompts are text; remove the row")


def _no_prompt(row: Mapping[str, Any], asked: str | None, nulls: Collection[str]) -> UnusableRow:
    if empty := [name for name in nulls if name == asked or (not asked and name.strip().lower() in COLUMNS)]:
        return UnusableRow("empty_prompt", f"{empty[0]!r} is null", "a prompt must be text or turns; remove the row")
    originals: dict[str, str] = {}
    for column in row:  # those of `with_known_names` come last
        originals.setdefault(column.strip().lower(), repr(column)[:40])
    names = list(originals.values())
    more = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    there = ", ".join(names[:_SHOWN_COLUMNS]) + more
    wanted = f"no column {asked!r}" if asked else f"no column with a prompt ({', '.join(COLUMNS)})"
    advice = "rename the one with the prompt to `prompt`"
    if asked:
        simple = {_simple(name): name for name in originals.values()}
        meant = get_close_matches(_simple(asked), simple, n=1)
        advice = f"did you mean {simple[meant[0]]}?" if meant else "name the one with the prompt in `columns`"
    return UnusableRow("missing_column", wanted, f"the columns are {there or 'none'}; {advice}")


def _simple(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def _first(names: Sequence[str], row: Mapping[str, Any]) -> str | None:
    return next((name for name in names if row.get(name) not in (None, "", [])), None)


def _keys(value: Any) -> set[str]:
    first = value[0] if isinstance(value, list) and value else value
    return {key for key, item in first.items() if item is not None} if isinstance(first, Mapping) else set()
