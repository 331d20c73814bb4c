"""A run that is continued: whether its recipe allows it, and the record that it was."""

from pathlib import Path

from selfreward import recipe_file
from selfreward.begun import stored_recipe
from selfreward.dtypes import engine_dtype
from selfreward.errors import RecipeError
from selfreward.launch.finished import decisions_of
from selfreward.recipe import Recipe
from selfreward.settled import resumed
from selfreward.store import Store


def continued_recipe(store: Store, recipe: Recipe) -> Recipe:
    """Return the recipe with what the run began with. Raises RecipeError for one with which it cannot be continued."""
    before = stored_recipe(store.folder)
    recipe = resumed(recipe, before)
    _, fixed = recipe_file.changed_keys(before, recipe)
    if fixed:
        start = before.policy.model if any(change.startswith("models.policy.model: ") for change in fixed) else ""
        asked_from = (
            f" (it started with --from, from {start}: give it again)" if Path(start).name == "checkpoint" else ""
        )
        raise RecipeError(
            f"{store.folder}: contains a run of another recipe ({'; '.join(fixed)}); these keys may not change on "
            f"resume; undo the change{asked_from}, or set another output_dir"
        )
    _refuse_fewer_iterations(store, recipe.iterations.max)
    return recipe


def _refuse_fewer_iterations(store: Store, most: int) -> None:
    """Refuse an `iterations.max` below the iterations that there are: nothing that is finished is undone."""
    num_finished = len(decisions_of(store))
    has_begun = store.has_begun(num_finished + 1)
    if most >= (least := num_finished + has_begun):
        return
    begun = f" and iteration {least} has begun" if has_begun else ""
    other = f"; `--from {store.folder}@{most}` with another output_dir starts a run from M_{most}" * (
        most <= num_finished
    )
    raise RecipeError(
        f"{store.folder}: iterations.max is {most}, but {num_finished} iterations are finished{begun}, and nothing of "
        f"that is undone; set iterations.max to {least}, to end the run after M_{least}, or to more{other}"
    )


def record_resume(store: Store, recipe: Recipe, asked: Recipe) -> None:
    """Store the recipe with which a run is continued, and the keys that changed; `asked` is as the user wrote it."""
    changeable, _ = recipe_file.changed_keys(stored_recipe(store.folder), recipe)
    here = engine_dtype(asked.engine)
    is_other = asked.engine.dtype == "auto" and here.name != recipe.engine.dtype
    kept = (
        [f"engine.dtype stays {recipe.engine.dtype}; here it would be {here.name}: {here.reason}"] if is_other else []
    )
    store.record_event("resumed", changed=[*changeable, *kept])
    store.write_text("recipe.yaml", recipe_file.dump(recipe))
