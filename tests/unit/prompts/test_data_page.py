"""docs/data.md: its rows are read in the shapes that it names, and its defaults are those of the code."""

import json
import re
from pathlib import Path

from cases.rows import found_in

from selfreward.prompts.shapes import COLUMNS
from selfreward.prompts.unusable import Reason
from selfreward.recipe.prompts import COMPRESSIONS, DATASET_DROPPED_RATE, FILE_DROPPED_RATE, FORMATS

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_row_of_the_page_has_the_shape_under_which_it_stands() -> None:
    sections = re.findall(r"^(`[^\n]*?):[^\n]*\n```json\n(.*?)\n```", PAGE, re.MULTILINE | re.DOTALL)
    named = [re.findall(r"`(\w+)`", names) for names, _ in sections]
    assert [name for names in named for name in names if name != "rejected"] == list(COLUMNS)
    for names, (_, rows) in zip(named, sections, strict=True):
        for row in map(json.loads, rows.split("\n")):
            found = found_in(row)
            assert found.shape.split(" ")[0] in names
            assert found.used == row.keys() - {"label"}, row
            assert "sea" in found.prompt.messages[-1].content or names[0] in ("instruction", "question", "problem")


def test_the_page_names_formats_reasons_and_defaults() -> None:
    for word in (*FORMATS, *COMPRESSIONS, f"is {FILE_DROPPED_RATE} for files", f"{DATASET_DROPPED_RATE} for datasets"):
        assert word in PAGE
    reasons = {reason.replace("_", " ") for reason in Reason.__args__} - {"bad id"}  # type: ignore[attr-defined]
    assert reasons <= set(re.findall(r"`([a-z ]+)`", PAGE.replace("\n", " ")))
