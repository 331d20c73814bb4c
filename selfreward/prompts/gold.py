"""Gold pairs, pairs of responses with a known order, from a file; the judge's accuracy is measured on them.

The prompts are used as in the file, without the recipe's system prompt, because the order is known only for these.
Responses are texts, messages of the assistant, or whole conversations that begin with the prompt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from selfreward.prompts.collecting import Summary, collect
from selfreward.prompts.files import Row, open_rows
from selfreward.prompts.rows import Found, RowReader
from selfreward.prompts.shapes import common_turns, with_known_names
from selfreward.prompts.turns import read_turns
from selfreward.prompts.unusable import UnusableRow, require_text
from selfreward.recipe import Columns
from selfreward.recipe.prompts import FILE_DROPPED_RATE
from selfreward.records import GoldPair, Message

_RESPONSES = ("chosen", "rejected")


def read_gold(path: str) -> tuple[tuple[GoldPair, ...], Summary]:
    """Read the pairs of a file of any format in order; a row has a prompt, `chosen`, `rejected`, optionally `id`.

    Ids get the prefix `gold-`. Each prompt occurs once, because prompts are the unit of all statistics. Raises
    RecipeError.
    """
    key = "evaluation.gold"
    found, summary = collect(
        open_rows(path, key=key), _GoldReader(RowReader(f"file:{path}")).read, name=f"{key}: {path}",
        max_dropped_rate=FILE_DROPPED_RATE, section=None, columns=Columns(),
    )  # fmt: skip
    pairs = (GoldPair(replace(each.prompt, id=f"gold-{each.prompt.id}"), *each.pair) for each in found)
    return tuple(pairs), summary


@dataclass(frozen=True)
class _GoldReader:
    prompts: RowReader

    def read(self, row: Row) -> Found:
        """Return prompt and pair of a row. Raises UnusableRow."""
        values = with_known_names(row.columns)
        if missing := [name for name in _RESPONSES if name not in values]:
            raise UnusableRow(
                "bad_pair",
                f"no {' and no '.join(map(repr, missing))}",
                "a row needs a prompt, 'chosen' and 'rejected'; complete the row or remove it",
            )
        turns = {name: _turns(values[name], name) for name in _RESPONSES}
        whole = {name: each for name, each in turns.items() if len(each) > 1}
        if len(whole) == len(_RESPONSES):  # more exact than a prompt beside them: it may be the first turn only
            prompt = common_turns(*whole.values())
            values |= {"prompt": [{"role": turn.role, "content": turn.content} for turn in prompt]}
        found = self.prompts.read(replace(row, content=values))
        chosen, rejected = (_response(values[name], turns[name], name) for name in _RESPONSES)
        if chosen.strip() == rejected.strip():
            raise UnusableRow(
                "bad_pair", "'chosen' and 'rejected' are the same text", "one of the two must be better; correct it"
            )
        return replace(found, used=found.used | {*_RESPONSES}, pair=(chosen, rejected))


def _turns(value: Any, name: str) -> tuple[Message, ...]:
    """Return the turns of a response that is given as messages; () for a text."""
    if isinstance(value, Mapping | list):
        return read_turns(value, name)
    turns = read_turns(value, name) if isinstance(value, str) and value.strip() else ()
    return turns if len(turns) > 1 else ()  # a transcript


def _response(value: Any, turns: tuple[Message, ...], name: str) -> str:
    if turns:
        if turns[-1].role != "assistant":
            raise UnusableRow(
                "bad_pair", f"{name!r} does not end with the assistant", "a response is from the assistant; correct it"
            )
        return turns[-1].content
    text = require_text(value, repr(name))
    if not text.strip():
        raise UnusableRow("bad_pair", f"{name!r} is empty", "a response needs some text; correct or remove the row")
    return text
