"""A run that is not finished, continued with fewer iterations than it has."""

from pathlib import Path

import pytest

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.launch.continued import continued_recipe
from selfreward.recipe import Recipe
from selfreward.store import Store
from selfreward.tables import COUNTS, DECISION

DECIDED = {"iteration": 1, "decision": "CONTINUE", "reason": "r", "best_iteration": 0, "failed_checks": [], "notes": []}


def recipe(most: int) -> Recipe:
    text = "models: {policy: {model: random:tiny}}\nprompts: builtin\nengine: {dtype: float32}\n"
    return recipe_file.parse(text, overrides=[f"iterations.max={most}"])


def made_run(folder: Path, *, finished: int, begun: int) -> Store:
    store = Store(folder, name="run")
    store.write_text("recipe.yaml", recipe_file.dump(recipe(5)))
    for t in range(begun + 1):
        store.read_or_make_json(t, COUNTS, dict)
        if 1 <= t <= finished:
            store.read_or_make_json(t, DECISION, lambda t=t: DECIDED | {"iteration": t})
    return store


@pytest.mark.parametrize(
    ("begun", "refused", "least", "words"),
    [(3, (1, 2), 3, "3 iterations are finished, and"), (4, (1, 3), 4, "finished and iteration 4 has begun, and")],
)
def test_fewer_iterations_than_there_are_are_refused(
    tmp_path: Path, begun: int, refused: tuple[int, ...], least: int, words: str
) -> None:
    with made_run(tmp_path, finished=3, begun=begun) as store:
        for most in refused:
            with pytest.raises(RecipeError) as caught:
                continued_recipe(store, recipe(most))
            assert f"iterations.max is {most}, but 3 iterations are " in str(caught.value)
            assert words in str(caught.value) and f"set iterations.max to {least}, to end" in str(caught.value)
            assert f"`--from {tmp_path}@{most}` with another output_dir" in str(caught.value)
        for most in (least, least + 1):
            assert continued_recipe(store, recipe(most)).iterations.max == most
