"""Gold pairs, pairs of responses with a known order, from a file; the judge's accuracy is measured on them.

The prompts are used as in the file, without the recipe's system prompt, because the order is known only for these.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.file import read_rows
from selfreward.prompts.rows import Defect, read_text
from selfreward.records import GoldPair


def read_gold(path: str) -> tuple[GoldPair, ...]:
    """Read the pairs of a JSONL or Parquet file in order; a row has `prompt`, `chosen`, `rejected`, optionally `id`.

    Ids get the prefix `gold-`. Each prompt may occur once in the file, because prompts are the unit of all statistics.
    Raises RecipeError, with file and line, at the first row that is not a valid pair.
    """
    pairs = []
    for where, row, prompt in read_rows(path, needed=("prompt", "chosen", "rejected")):
        chosen, rejected = (_text(row, name, where) for name in ("chosen", "rejected"))
        if chosen.strip() == rejected.strip():
            raise RecipeError(
                f"{where}: 'chosen' and 'rejected' are the same text; one of the two must be better; correct or "
                "remove the row"
            )
        pairs.append(GoldPair(replace(prompt, id=f"gold-{prompt.id}"), chosen, rejected))
    return tuple(pairs)


def _text(row: Mapping[str, Any], name: str, where: str) -> str:
    text = read_text(row[name], repr(name))
    if isinstance(text, Defect):
        raise RecipeError(f"{where}: {text.found}; {text.advice}")
    if not text.strip():
        raise RecipeError(f"{where}: {name!r} is empty; a response needs some text; correct or remove the row")
    return text
