"""Conversion of a row to a prompt: its conversation, id, checks and reference."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from selfreward.checks import validate
from selfreward.errors import RecipeError
from selfreward.prompts.answers import AnswerCheck, boxed, check_of, is_checkable
from selfreward.prompts.files import Row
from selfreward.prompts.shapes import Conversation, read_conversation, with_known_names
from selfreward.prompts.unusable import UnusableRow, require_text
from selfreward.recipe import Columns
from selfreward.records import Prompt

SOLUTIONS = ("solution",)
ANSWERS = ("answer", "ground_truth", "final_answer")

# Ids are used in record keys and file names.
_UNSAFE_START, _UNSAFE = re.compile(r"^[^A-Za-z0-9]+"), re.compile(r"[^A-Za-z0-9._-]+")
_MAX_ID_CHARS = 100


@dataclass(frozen=True)
class Found:
    """The prompt of a row, the shape in which it was found, and the columns that were used.

    `has_own_id`: the id is that of the row, unchanged, or the row has none. `pair` are the responses of a gold pair.
    """

    prompt: Prompt
    shape: str
    used: frozenset[str]
    has_own_id: bool
    pair: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class RowReader:
    """Reads rows of one source. `columns` are the names that the user gave; the others are found."""

    source: str
    columns: Columns = field(default_factory=Columns)
    answer_check: AnswerCheck = "auto"

    def read(self, row: Row) -> Found:
        """Return the prompt of a row. Raises UnusableRow."""
        values = with_known_names(row.columns)
        conversation = read_conversation(values, self.columns, nulls=row.columns.keys() - values.keys())
        used = set(conversation.used)
        prompt_id, has_own_id = read_id(values.get(self.columns.id or "id"), row.id)
        checks = self.checks_of(values, conversation, used)
        reference = self._reference(values, conversation, used)
        known = {self.columns.id or "id", "checks"} & values.keys()
        prompt = Prompt(prompt_id, conversation.messages, checks, self.source, reference)
        return Found(prompt, conversation.shape, frozenset(used | known), has_own_id)

    def checks_of(
        self, values: Mapping[str, Any], conversation: Conversation, used: set[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """Return the checks of a row: those that it has, and that of its answer. Raises UnusableRow."""
        return read_checks(values.get("checks")) + self._answer(values, conversation, used)

    def _reference(self, values: Mapping[str, Any], conversation: Conversation, used: set[str]) -> str:
        name = self.columns.reference or "reference"
        if name in values:
            used.add(name)
            try:
                return require_text(values[name], repr(name))
            except UnusableRow as error:
                raise UnusableRow("bad_reference", *str(error).split("; ", 1)) from None
        for other in () if conversation.response else (*SOLUTIONS, *ANSWERS):
            if isinstance(values.get(other), str) and values[other].strip():
                used.add(other)
                return require_text(values[other], repr(other))
        return conversation.response

    def _answer(
        self, values: Mapping[str, Any], conversation: Conversation, used: set[str]
    ) -> tuple[Mapping[str, Any], ...]:
        """Return the check of the row's answer. One that nobody named is used only when it is surely a final one."""
        if (name := self.columns.answer) is not None:
            used.add(name)
            if name not in values:
                raise UnusableRow("bad_answer", f"no answer in the column {name!r}", "remove the row")
            return (_checked(check_of(values[name], self.answer_check)),)
        name, answer = _found_answer(values)
        if answer is None:
            return ()
        is_final = conversation.shape == "problem" or name not in ("answer", "final_answer") or is_checkable(answer)
        if not is_final and self.answer_check == "auto":
            return ()
        try:
            check = _checked(check_of(answer, self.answer_check))
        except UnusableRow:  # a list of aliases, an empty text: not what was taken for an answer
            return ()
        used.add(name)
        return (check,)


def _found_answer(values: Mapping[str, Any]) -> tuple[str, Any]:
    """Return name and value of the answer that a row has under a usual name; value None when it has none."""
    for name in ANSWERS:
        if name in values:
            return name, values[name]
    if isinstance(rule := values.get("reward_model"), Mapping):  # verl's
        return "reward_model", rule.get("ground_truth")
    solution = values.get("solution")
    return "solution", (boxed(solution) or None) if isinstance(solution, str) else None


def read_id(value: Any, default: str) -> tuple[str, bool]:
    """Return the id of a row, and whether it is its own: one with other characters is made of those allowed."""
    if isinstance(value, float) and value.is_integer():  # as tables with missing values write whole numbers
        value = int(value)
    if value is None or value == "" or value != value:
        return _safe(default), True
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        return _safe(default), False
    safe = _safe(text)
    return safe or _safe(default), safe == text


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", _UNSAFE_START.sub("", text))[:_MAX_ID_CHARS]


def read_checks(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Return the declarative checks of a row; a table may have them as JSON text. Raises UnusableRow."""
    if isinstance(value, str) and value.strip():
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if value in (None, ""):
        return ()
    if not isinstance(value, list):
        raise UnusableRow(
            "bad_checks", f"checks are {value!r:.80}", "checks must be a list of {kind, ...}; correct the row"
        )
    return tuple(_checked(check, f"check {number}") for number, check in enumerate(value, start=1))


def _checked(check: Any, name: str = "the check of the answer") -> Mapping[str, Any]:
    try:
        validate(check, where=name)
        json.dumps(check, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise UnusableRow(
            "invalid_unicode", f"{name} contains a lone surrogate", "text must be valid Unicode; write the file again"
        ) from None
    except RecipeError as error:
        found, _, advice = str(error).partition("; ")
        raise UnusableRow("bad_checks", found, advice) from None
    # Arrow gives every mapping of a column the same keys and fills missing ones with nulls.
    return {key: item for key, item in check.items() if item is not None}
