"""Runs that start from a checkpoint of another run: held-out prompts are compared with all runs before."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.launch.started_from import checkpoint_in, seen_prompts_warnings, start_of
from selfreward.records import Message, Prompt
from selfreward.store import Store
from selfreward.tables import PROMPTS


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(text, (Message("user", text),), (), "made", "") for text in texts]


def source(*texts: str) -> Any:
    found = prompts(*texts)
    return SimpleNamespace(
        validation_prompts=lambda: found[:1], second_validation_prompts=lambda: found[1:], test_prompts=list
    )


def made_run(folder: Path, *iterations: str, started_from: tuple[Path, int] | None = None) -> Path:
    """Write a run that was trained on one prompt in each iteration, with their checkpoints."""
    with Store(folder, name=folder.name) as store:
        for t, text in enumerate(iterations, start=1):
            store.stage(t, PROMPTS, 1, lambda _, text=text: prompts(text))
            (folder / f"iteration-{t:02d}" / "checkpoint").mkdir()
        if started_from:
            store.record_facts(started_from={"run": str(started_from[0]), "iteration": started_from[1]})
    return folder


def warnings(run: Path, t: int, *held_out: str) -> list[str]:
    checkpoint = run / f"iteration-{t:02d}" / "checkpoint"
    recipe = recipe_file.parse(f"models: {{policy: {{model: {checkpoint}}}}}\nprompts: builtin\n")
    assert start_of(recipe) == {"started_from": {"run": str(run), "iteration": t}}
    return list(seen_prompts_warnings(recipe, source(*held_out)))


def test_prompts_of_all_runs_before_are_counted(tmp_path: Path) -> None:
    first = made_run(tmp_path / "first", "a", "b", "c")
    second = made_run(tmp_path / "second", "d", started_from=(first, 2))
    third = made_run(tmp_path / "third", "e", "f", started_from=(second, 1))
    assert warnings(third, 1, "x", "y") == []
    (found,) = warnings(third, 1, "x", "a", "d", "c", "f")
    assert f"2 of the 5 prompts that are held out here were training prompts of {second} and {first}," in found
    (found,) = warnings(third, 2, "b", "y")
    assert f"1 of the 2 prompts that are held out here were training prompts of {first}," in found


def test_an_iteration_that_is_no_number_is_explained(tmp_path: Path) -> None:
    run = made_run(tmp_path / "first", "a")
    with pytest.raises(RecipeError, match=f"--from {run}@last: 'last' is not a number.*write {run}@1, or {run}$"):
        checkpoint_in(f"{run}@last")


def test_a_run_before_that_is_gone_is_named(tmp_path: Path) -> None:
    first = made_run(tmp_path / "first", "a")
    second = made_run(tmp_path / "second", "b", started_from=(first, 1))
    shutil.rmtree(first)
    gone, counted = warnings(second, 1, "b", "a")
    assert gone.startswith(f"models.policy: {first}, from which {second} started, is gone, so prompts")
    assert "put the folder back, or set evaluation.prompts" in gone
    assert f"1 of the 2 prompts that are held out here were training prompts of {second}," in counted
