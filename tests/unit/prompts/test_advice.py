"""The advice of a refused file names only what can be done there: not every section has keys for columns."""

import json
import re
from pathlib import Path

import pytest

from selfreward.commands.judge import read_rows
from selfreward.errors import RecipeError
from selfreward.prompts.checked import checked_prompts
from selfreward.prompts.files import open_rows
from selfreward.prompts.gold import read_gold
from selfreward.prompts.reading import read_prompts
from selfreward.recipe import Columns, FilePrompts, VerifiableEvaluation

KEYS = ("columns.", "columns:", "max_dropped_rate", "another column", "other columns")


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Rows of which none has a prompt under a known name."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"ask": f"Why {i}?", "response": "So."}) + "\n" for i in range(4)))
    return str(path)


def test_the_prompts_of_a_recipe_may_name_their_column(file: str) -> None:
    with pytest.raises(
        RecipeError, match=r"or name the column of the prompt: prompts\.columns\.prompt=NAME\n"
    ) as caught:
        read_prompts(FilePrompts(kind="file", path=file), key="prompts")
    assert "max_dropped_rate" not in str(caught.value), "no rate helps when no row can be used"
    assert "the columns are 'ask', 'response'; rename the one with the prompt to `prompt`" in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "advice"),
    [
        ("ASK", "did you mean 'ask'?"),
        ("a s k", "did you mean 'ask'?"),
        ("exam item", "name the one with the prompt in"),
    ],
)
def test_a_column_that_is_not_there_has_a_suggestion(file: str, asked: str, advice: str) -> None:
    section = FilePrompts(kind="file", path=file, columns=Columns(prompt=asked))
    with pytest.raises(RecipeError, match=re.escape(f"the columns are 'ask', 'response'; {advice}")):
        read_prompts(section, key="prompts")


def test_the_rate_is_named_when_some_rows_are_good(file: str) -> None:
    with Path(file).open("a") as stream:
        stream.write('{"prompt": "Why not?"}\n')
    with pytest.raises(RecipeError, match=r"or raise evaluation\.prompts\.max_dropped_rate\n"):
        read_prompts(FilePrompts(kind="file", path=file), key="evaluation.prompts")


def test_the_verifiable_prompts_of_a_recipe_may_name_their_column_too(file: str) -> None:
    with pytest.raises(RecipeError, match=r": evaluation\.verifiable\.columns\.prompt=NAME\n"):
        checked_prompts(VerifiableEvaluation(path=file), seed=0)


def test_other_files_have_no_such_keys(file: str) -> None:
    for read in (lambda: read_rows(open_rows(file), name=file), lambda: read_gold(file)):
        with pytest.raises(RecipeError) as caught:
            read()
        assert not [key for key in KEYS if key in str(caught.value)], str(caught.value)
