"""`prompts` as a text, and the names of columns in a recipe."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import BuiltinPrompts, DatasetPrompts, FilePrompts, PromptsSection

SECTION: TypeAdapter[PromptsSection] = TypeAdapter(PromptsSection)


@pytest.mark.parametrize(
    "text", ["a.jsonl", "none/such.CSV", "x.json.gz", "./data", "/data/x", "~/x", "there", "there.d/in", "."]
)
def test_a_text_that_is_or_looks_like_a_path_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there.d").mkdir()
    (tmp_path / "there.d" / "in").write_text("x")
    assert SECTION.validate_python(text) == FilePrompts(kind="file", path=text)


@pytest.mark.parametrize("text", ["org/name", "squad", "org/x.parquet.zip", "org/name-v1.5", "x" * 5000, "a\0b"])
def test_any_other_text_is_a_dataset(text: str) -> None:
    assert SECTION.validate_python(text) == DatasetPrompts(kind="dataset", name=text)


def test_a_kind_alone_is_a_section() -> None:
    assert SECTION.validate_python("builtin") == BuiltinPrompts(kind="builtin")


@pytest.mark.parametrize("value", ["", 7, [], None, {"path": "x.jsonl"}, {"kind": "file", "path": ""}])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"prompts|kind|dictionary|character"):
        SECTION.validate_python(value)


def test_the_column_is_named_once() -> None:
    same = {"kind": "file", "path": "x.jsonl", "column": "ask"}
    assert SECTION.validate_python(same).named_columns.prompt == "ask"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"column: ask and columns.prompt: b name two columns"):
        SECTION.validate_python({**same, "columns": {"prompt": "b"}})


def test_a_recipe_keeps_what_a_text_stood_for(tmp_path: Path) -> None:
    sets = ["prompts=a.csv", "evaluation.prompts=org/name"]
    recipe = recipe_file.load(Path("recipes/tiny.yaml"), sets)
    assert (recipe.prompts, recipe.evaluation.prompts) == (
        FilePrompts(kind="file", path=str(Path("a.csv").absolute())),
        DatasetPrompts(kind="dataset", name="org/name"),
    )
    assert recipe_file.parse(recipe_file.dump(recipe)) == recipe
    with pytest.raises(RecipeError, match=r"prompts.columns.promt: unknown key; .* did you mean 'prompt'"):
        recipe_file.load(Path("recipes/tiny.yaml"), ["prompts={kind: file, path: x, columns: {promt: y}}"])


def test_gold_pairs_may_be_a_path_alone() -> None:
    text = "output_dir: runs/a\nmodels: {policy: {model: 'random:tiny'}}\nprompts: builtin\nevaluation: {gold: %s}\n"
    paths = [recipe_file.parse(text % gold).evaluation.gold for gold in ("pairs.csv", "{path: pairs.csv}")]
    assert paths[0] == paths[1] and paths[0] is not None and paths[0].path == "pairs.csv"
