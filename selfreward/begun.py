"""The run folder of a recipe, and the recipe of a run that has begun."""

from pathlib import Path

from selfreward import recipe_file
from selfreward.recipe import Recipe
from selfreward.store import Store
from selfreward.store.names import MANIFEST, folder_of


def run_folder(recipe: Recipe) -> Path:
    """Return the run folder of a recipe; a relative one is in the working directory."""
    return Path(recipe.output_dir).expanduser()


def has_begun(folder: Path) -> bool:
    """Return whether a run in this folder has finished any file. Raises StoreError for a damaged run folder."""
    return (folder / MANIFEST).exists() and bool(Store(folder, write=False).manifest["files"])


def stored_recipe(folder: Path) -> Recipe:
    """Return the recipe of a run folder; when its file was removed, that of iteration 1, which is the same.

    Raises StoreError.
    """
    paths = [folder / "recipe.yaml", folder / folder_of(1) / "recipe.yaml"]
    return recipe_file.load_stored(next((path for path in paths if path.exists()), paths[0]))
