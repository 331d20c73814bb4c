"""`selfreward.run`: runs or resumes a recipe in this process."""

import sys
from contextlib import nullcontext

from selfreward.api.recipes import Overrides, RecipeLike, recipe_of
from selfreward.api.run_folder import Run
from selfreward.commands.console import Console
from selfreward.launch import local
from selfreward.updates.progress import hidden


def run(recipe: RecipeLike, overrides: Overrides = (), *, progress: local.Progress | bool = True) -> Run:
    """See `selfreward.run`."""
    if progress is True:
        progress = Console(sys.stderr)
    with nullcontext() if progress else hidden():
        result = local.run(recipe_of(recipe, overrides), progress=progress or (lambda *_: None))
    return Run(result.folder.absolute())
