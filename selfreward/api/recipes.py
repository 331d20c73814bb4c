"""A recipe as Python code gives it: a path, nested dicts, or a `Recipe`."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.recipe import Recipe

RecipeLike = str | os.PathLike[str] | Mapping[str, Any] | Recipe
"""A path of a YAML file, a dict with the same keys, or a `Recipe`. Paths in a dict are relative to the working
directory."""

Overrides = Sequence[str] | Mapping[str, Any]
"""`("judging.num_draws=5",)`, as for `--set`, or `{"judging.num_draws": 5}`."""


def recipe_of(recipe: RecipeLike, overrides: Overrides = ()) -> Recipe:
    """Return the recipe, with overrides. Raises RecipeError."""
    assignments = _assignments(overrides)
    if isinstance(recipe, Recipe):
        keys = recipe.model_dump(mode="json", exclude_unset=True)  # so that sizes which are not set follow the data
        return recipe_file.validated(keys, overrides=assignments, folder=Path.cwd()) if assignments else recipe
    if isinstance(recipe, Mapping):
        return recipe_file.validated(_plain(recipe), overrides=assignments, folder=Path.cwd())
    if isinstance(recipe, str | os.PathLike):
        return recipe_file.load(Path(recipe), assignments)
    raise RecipeError(
        f"recipe: found {type(recipe).__name__}; allowed are a path, a dict or a Recipe; give one of them"
    )


def _assignments(overrides: Overrides) -> list[str]:
    """Return the overrides as KEY=VALUE; JSON is YAML."""
    if isinstance(overrides, str):
        raise RecipeError(
            f"overrides: found the text {overrides!r:.60}; allowed are a list of texts or a dict; use one"
        )
    if isinstance(overrides, Mapping):
        return [f"{key}={json.dumps(_plain(value))}" for key, value in overrides.items()]
    return list(overrides)


def _plain(value: Any) -> Any:
    """Return a copy as in a YAML file: paths as texts, tuples as lists."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value
