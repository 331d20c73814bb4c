"""Conversion of a row of a file or dataset to a prompt, or to a defect that describes the error."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from selfreward.records import Message, Prompt

ROLES = ("system", "user", "assistant")
DefectKind = Literal[
    "missing_column", "wrong_type", "empty_prompt", "turns_out_of_order", "last_turn_not_user",
    "invalid_unicode", "bad_id", "bad_checks", "bad_reference",
]  # fmt: skip
# Ids are used in record keys and file names.
_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Defect:
    """An error in a row: `kind` for counting, `found` and `advice` (what is allowed; what to do) for messages."""

    kind: DefectKind
    found: str
    advice: str


def read_row(row: Mapping[str, Any], *, column: str, default_id: str, source: str, where: str) -> Prompt | Defect:
    """Read a row whose `column` is text or a list of `{role, content}`; `id`, `checks`, `reference` are optional.

    Raises RecipeError for a check that does not validate; the message begins with `where`.
    """
    if column not in row:
        return Defect(
            "missing_column",
            f"no column {column!r}",
            f"the columns are {', '.join(map(repr, row)) or 'none'}; name the right one with the key `column`",
        )
    messages = _read_messages(row[column], column)
    if isinstance(messages, Defect):
        return messages
    prompt_id = _read_id(row.get("id"), default_id)
    if isinstance(prompt_id, Defect):
        return prompt_id
    checks = _read_checks(row.get("checks"), where)
    if isinstance(checks, Defect):
        return checks
    reference = read_text(row.get("reference") or "", "reference")
    if isinstance(reference, Defect):
        return replace(reference, kind="bad_reference")
    return Prompt(id=prompt_id, messages=messages, checks=checks, source=source, reference=reference)


def read_text(value: object, location: str) -> str | Defect:
    """Return a text, which may be empty, or a defect if it is not text or cannot be encoded as UTF-8."""
    if not isinstance(value, str):
        return Defect("wrong_type", f"{location} is {type(value).__name__}", "it must be text; correct the row")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        return Defect(
            "invalid_unicode",
            f"{location} has the lone surrogate U+{ord(value[error.start]):04X} at character {error.start + 1}",
            "text must be valid Unicode; write the file again as UTF-8 or remove the row",
        )
    return value


def _read_messages(value: object, column: str) -> tuple[Message, ...] | Defect:
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list):
        found = "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
        return Defect(
            "wrong_type",
            f"{column!r} is {found}",
            "a prompt must be text or a list of {role, content} messages; correct the row",
        )
    messages = []
    for number, turn in enumerate(value, start=1):
        message = _read_message(turn, f"{column!r} message {number}")
        if isinstance(message, Defect):
            return message
        messages.append(message)
    return _order_defect(messages, column) or tuple(messages)


def _read_message(turn: object, location: str) -> Message | Defect:
    if not isinstance(turn, Mapping):
        return Defect(
            "wrong_type", f"{location} is {type(turn).__name__}", "a message must be {role, content}; correct the row"
        )
    role, content = turn.get("role"), turn.get("content")
    if role not in ROLES:
        return Defect(
            "wrong_type",
            f"{location} has the role {role!r}",
            f"roles are {', '.join(ROLES)}; rename it or remove the row",
        )
    if not isinstance(content, str):
        return Defect(
            "wrong_type", f"{location} has the content {content!r:.40}", "content must be text; correct the row"
        )
    if not content.strip():
        return Defect("empty_prompt", f"{location} is empty", "every turn needs some text; remove the row")
    text = read_text(content, location)
    if isinstance(text, Defect):
        return text
    return Message(role, content)


def _order_defect(messages: list[Message], column: str) -> Defect | None:
    if not messages:
        return Defect(
            "empty_prompt", f"{column!r} has no message", "a prompt must end with a user turn; remove the row"
        )
    if any(message.role == "system" for message in messages[1:]):
        return Defect(
            "turns_out_of_order", f"{column!r} has a system turn that is not the first", "put it first or remove it"
        )
    if messages[-1].role != "user":
        return Defect(
            "last_turn_not_user",
            f"the last turn of {column!r} is from the {messages[-1].role}",
            "a prompt must end with a user turn, to which the policy responds; remove what follows it",
        )
    return None


def _read_id(value: object, default_id: str) -> str | Defect:
    if value is None:
        return default_id
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(text, str) and _SAFE_ID.fullmatch(text):
        return text
    return Defect(
        "bad_id",
        f"the id is {value!r:.120}",
        "ids are 1 to 100 of A-Z a-z 0-9 . _ - and begin with a letter or digit; rename it, or omit `id`",
    )


def _read_checks(value: object, where: str) -> tuple[Mapping[str, Any], ...] | Defect:
    from selfreward.checks import validate

    if value is None:
        return ()
    if not isinstance(value, list):
        return Defect(
            "bad_checks", f"checks are {value!r:.80}", "checks must be a list of {kind, ...}; correct the row"
        )
    for number, check in enumerate(value, start=1):
        validate(check, where=f"{where}, check {number}")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Defect(
            "invalid_unicode",
            "a check contains a lone surrogate",
            "text must be valid Unicode; write the file again as UTF-8",
        )
    # Arrow gives every mapping of a column the same keys and fills missing ones with nulls.
    return tuple({key: item for key, item in check.items() if item is not None} for check in value)
