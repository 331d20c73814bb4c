"""The varied prompts that ship with the package: our own texts, under the package's licence (Apache-2.0)."""

import json
from importlib.resources import files

from selfreward.records import Message, Prompt


def read_builtin() -> list[Prompt]:
    """The prompts in the order of the file, ids CATEGORY-NN; how varied they are is what `diversity` measures."""
    text = (files("selfreward.prompts") / "data" / "builtin.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [Prompt(row["id"], (Message("user", row["prompt"]),), source="builtin") for row in rows]
