"""Recipes as Python code gives them: paths, dicts and overrides mean the same as a YAML file and `--set`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selfreward import recipe_file
from selfreward.api.judging import judge_recipe_of
from selfreward.api.recipes import recipe_of
from selfreward.errors import RecipeError
from selfreward.recipe import VerifierSection

TINY = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
MINE: dict[str, Any] = {
    "output_dir": Path("runs/mine"),
    "models": {"policy": {"model": "random:tiny"}},
    "prompts": {"kind": "builtin"},
}


def test_a_dict_is_the_same_as_a_file_and_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("output_dir: runs/mine\nmodels: {policy: {model: 'random:tiny'}}\nprompts: {kind: builtin}\n")
    overrides = {"iterations.max": 2, "monitor.interventions": {"DRIFT": ("pin_judge",)}, "note": None}
    before = repr(MINE)
    assert recipe_of(MINE, overrides) == recipe_of(file, overrides) == recipe_of(recipe_of(str(file)), overrides)
    assert repr(MINE) == before
    assert recipe_of(TINY, ["iterations.max=2"]) == recipe_file.load(TINY, ["iterations.max=2"])


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        (4, (), "found int"),
        ({**MINE, "iteration": {}}, (), "did you mean 'iterations"),
        ({**MINE, "seed": 0.5}, (), "seed"),
        (MINE, "iterations.max=2", "a list of texts or a dict"),
        (MINE, {"iterations.mx": 2}, "unknown key"),
        (MINE, {"iterations max": 2}, "not KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_named(recipe: Any, overrides: Any, words: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        recipe_of(recipe, overrides)
    assert words in str(refusal.value)


def test_a_judge_needs_less_than_a_run() -> None:
    section: Mapping[str, Any] = {"kind": "verifier"}
    alone = judge_recipe_of(section, {"engine.kind": "transformers"}, model="random:tiny")
    assert isinstance(alone.judging, VerifierSection) and alone.policy.model == "random:tiny"
    assert judge_recipe_of({"models": MINE["models"], "judging": section}).judging == alone.judging
    with pytest.raises(RecipeError, match="needs the model that judges"):
        judge_recipe_of(section)
    with pytest.raises(RecipeError, match="this recipe names its models"):
        judge_recipe_of(MINE, model="random:tiny")


def test_overrides_of_a_recipe_leave_open_what_it_leaves_open() -> None:
    open_recipe = recipe_of({"models": MINE["models"], "prompts": "builtin"})
    other = recipe_of(open_recipe, {"seed": 3})
    assert other == recipe_of({"models": MINE["models"], "prompts": "builtin", "seed": 3})
    assert "batch_size" not in other.training.model_fields_set and other.output_dir != open_recipe.output_dir


def test_paths_in_a_dict_are_stored_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text("{}")
    assert recipe_of({**MINE, "prompts": "own.jsonl"}).prompts.path == str(tmp_path / "own.jsonl")  # type: ignore[union-attr]
