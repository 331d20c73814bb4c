"""`selfreward.run`: runs or resumes a recipe in this process."""

import sys

from selfreward.api.recipes import Overrides, RecipeLike, recipe_of
from selfreward.api.run_folder import Run
from selfreward.commands.console import Console
from selfreward.launch import local


def run(recipe: RecipeLike, overrides: Overrides = (), *, progress: local.Progress | bool = True) -> Run:
    """See `selfreward.run`."""
    if isinstance(progress, bool):
        progress = Console(sys.stderr) if progress else lambda *_: None
    return Run(local.run(recipe_of(recipe, overrides), progress=progress).folder.absolute())
