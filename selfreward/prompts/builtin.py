"""The varied prompts included in the package: our own texts, under the package's licence (Apache-2.0)."""

import json
from importlib.resources import files

from selfreward.records import Message, Prompt


def read_builtin() -> list[Prompt]:
    """Read the prompts in the order of the file, with ids CATEGORY-NN; `diversity` measures their diversity."""
    text = (files("selfreward.prompts") / "data" / "builtin.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return [Prompt(row["id"], (Message("user", row["prompt"]),), source="builtin") for row in rows]
