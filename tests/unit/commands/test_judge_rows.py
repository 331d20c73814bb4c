"""The input of `selfreward judge`: read line by line, whatever the path names."""

from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.commands.judge import judge_file
from selfreward.errors import RecipeError


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/dev/zero", "line 1: it has more than"), ("endless.jsonl", "line 2: it has more than"),
        ("folder", "a folder without a data file"), ("none.jsonl", "no such file"),
        ("/dev/null", "no rows"),
    ],
)  # fmt: skip
def test_an_input_that_is_no_jsonl_file_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "folder").mkdir()
    with (tmp_path / "endless.jsonl").open("wb") as file:
        file.write(b"{}\n")
        file.truncate(10**11)  # sparse
    with pytest.raises(RecipeError, match=words):
        judge_file(recipe_file.load(Path("recipes/tiny.yaml")), tmp_path / name, tmp_path / "out.jsonl")
