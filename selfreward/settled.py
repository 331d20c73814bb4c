"""The recipe with what it leaves to the machine and to the data: dtype and sizes. A run settles them once."""

from pathlib import Path

from selfreward import prompts, sizes
from selfreward.dtypes import with_dtype
from selfreward.history import has_begun, stored_recipe
from selfreward.recipe import Recipe


def settled(recipe: Recipe) -> Recipe:
    """Return the recipe with dtype and sizes: those with which the run in its folder began, or else those of this
    machine and of the prompts as they are now. Raises RecipeError and StoreError."""
    folder = Path(recipe.output_dir).expanduser()
    return resumed(recipe, stored_recipe(folder)) if has_begun(folder) else prompts.sized(with_dtype(recipe))


def resumed(recipe: Recipe, before: Recipe) -> Recipe:
    """Return the recipe with dtype, name and sizes of the run that began with `before`, where it sets none."""
    return with_dtype(sizes.as_begun(recipe, before), before.engine.dtype)
