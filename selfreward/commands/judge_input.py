"""The rows that `selfreward judge` judges: prompts with responses, in any of the known shapes."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.collecting import SHOWN_ROWS, listed
from selfreward.prompts.files import Row
from selfreward.prompts.rows import RowReader
from selfreward.prompts.shapes import read_conversation, response_text, with_known_names
from selfreward.prompts.unusable import UnusableRow, described, require_text
from selfreward.recipe import Columns
from selfreward.records import Prompt


@dataclass(frozen=True)
class InputRow:
    """One row of the file: its id as responses, and the ids of its responses."""

    id: str | int
    response_ids: tuple[str, ...]
    has_list: bool


@dataclass(frozen=True)
class InputRows:
    """A file of responses; prompts are distinguished by content, not by row."""

    rows: list[InputRow]
    prompts: dict[str, Prompt]
    texts: dict[str, tuple[str, str]]  # response id -> prompt id, text


def read_rows(rows: Iterable[Row], *, name: str) -> InputRows:
    """Read the rows of a file of responses. Raises RecipeError with all rows that cannot be used.

    A row has a prompt in any of the known shapes (docs/data.md), and `response`, a list `responses`, or the response
    that follows the prompt in its shape; optionally `id`, `reference`, `checks`, and an answer, which is a check too.
    """
    inputs = InputRows([], {}, {})
    seen: set[str] = set()
    prompt_ids: dict[str, str] = {}
    defects: list[str] = []
    num_defects = 0
    for row in rows:
        try:
            row_id, prompt, texts, has_list = _read_row(row)
            if str(row_id) in seen:
                found = f"the id {str(row_id)!r:.60} occurs twice"
                raise UnusableRow("bad_id", found, "ids must be unique; rename one")
        except UnusableRow as error:
            num_defects += 1
            defects += [f"{row.where}: {error}"] if num_defects <= SHOWN_ROWS else []
            continue
        seen.add(str(row_id))
        prompt_id = prompt_ids.setdefault(repr(replace(prompt, id="")), f"p{len(prompt_ids)}")
        inputs.prompts.setdefault(prompt_id, replace(prompt, id=prompt_id))
        ids = tuple(f"{prompt_id}/{len(inputs.rows)}.{index}" for index in range(len(texts)))
        inputs.texts.update((i, (prompt_id, text)) for i, text in zip(ids, texts, strict=True))
        inputs.rows.append(InputRow(row_id, ids, has_list))
    if defects:
        counted = "1 row" if num_defects == 1 else f"{num_defects:,} rows"
        raise RecipeError(
            f"{name}: {counted} cannot be judged; each needs a prompt and a response; correct or remove "
            f"them\n{listed(defects, num_defects)}"
        )
    if not inputs.rows:
        raise RecipeError(f"{name}: no rows; each row has a prompt and a response; check the file")
    return inputs


def _read_row(row: Row) -> tuple[str | int, Prompt, list[str], bool]:
    """Return id, prompt, responses and whether they were a list. Raises UnusableRow."""
    values = with_known_names(row.columns)  # exported tables write missing values as null
    row_id = values.get("id", _default_id(row))
    if not isinstance(row_id, int | str) or isinstance(row_id, bool):
        raise UnusableRow("bad_id", f"the id is {row_id!r:.60}", "ids are text or whole numbers; rename it")
    if isinstance(row_id, str):
        require_text(row_id, "the id")
    conversation = read_conversation(values, Columns())
    responses = _responses(values, conversation.response)
    reference = require_text(values.get("reference", ""), "reference")
    checks = RowReader("file").checks_of(values, conversation, set())
    prompt = Prompt("row", conversation.messages, checks, "file", reference)
    return row_id, prompt, responses, "responses" in values


def _default_id(row: Row) -> str | int:
    """Return the number of the line or row; in a folder also the file's name."""
    found = re.fullmatch(r"(?:line|row)-(\d+)", row.id)
    return int(found[1]) if found else row.id


def _responses(values: Mapping[str, Any], following: str) -> list[str]:
    """Return the responses of a row; `following` is the one that follows the prompt in the row's shape."""
    if "response" in values and "responses" in values:
        raise UnusableRow("bad_pair", "it has `response` and `responses`", "a row has one of the two; remove the other")
    if "responses" in values:
        found = values["responses"]
        if not isinstance(found, list):
            raise UnusableRow("bad_pair", f"`responses` is {described(found)}", "it must be a list of texts")
        return [require_text(text, "the response") for text in found]
    if "response" in values:
        return [require_text(response_text(values["response"], "response") or values["response"], "the response")]
    if not following and values.get("output") != "":  # an empty response is one; a missing response is none
        raise UnusableRow(
            "bad_pair",
            "no response",
            "a row has a prompt and either `response`, `responses`, `output` or a last turn of the assistant",
        )
    return [following]
