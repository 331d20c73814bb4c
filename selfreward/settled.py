"""The recipe with what it leaves to the machine, to the data and to a file of accelerate. A run settles them once."""

from selfreward import recipe_file, sizes
from selfreward.begun import has_begun, run_folder, stored_recipe
from selfreward.dtypes import with_dtype
from selfreward.recipe import Recipe


def settled(recipe: Recipe) -> Recipe:
    """Return the recipe with dtype and sizes: those with which the run in its folder began, or else those of this
    machine and of the prompts as they are now.

    A run of another recipe, with which `run` would refuse this one, does not count. Raises RecipeError and StoreError.
    """
    if recipe.launch.accelerate_config is not None:
        from selfreward.updates.accelerate_file import resolved as launch_of

        recipe = recipe.model_copy(update={"launch": launch_of(recipe.launch)})
    folder = run_folder(recipe)
    if has_begun(folder):
        before = stored_recipe(folder)
        found = resumed(recipe, before)
        _, fixed = recipe_file.changed_keys(before, found)
        if not fixed:
            return found
    from selfreward import prompts, tools  # a resumed or finished run needs none of their libraries

    return prompts.sized(with_dtype(recipe), fits_of=tools.fits_of)


def resumed(recipe: Recipe, before: Recipe) -> Recipe:
    """Return the recipe with dtype, name and sizes of the run that began with `before`, where it sets none."""
    return with_dtype(sizes.as_begun(recipe, before), before.engine.dtype)
