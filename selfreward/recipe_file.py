"""Recipe files: YAML and overrides to a recipe, and back. `recipe_errors.py` has the messages, `recipe_changes.py` the
changes on resume."""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from selfreward.errors import RecipeError, StoreError
from selfreward.recipe import Recipe
from selfreward.recipe.paths import from_command_line, relative_to
from selfreward.recipe.prompts import SHORT
from selfreward.recipe.renamed import KEYS
from selfreward.recipe.root import named_after
from selfreward.recipe_changes import changed_keys as changed_keys
from selfreward.recipe_changes import fixed_keys as fixed_keys
from selfreward.recipe_errors import KeyPath, explanations, line_of
from selfreward.yaml_text import parse_yaml, plain, read_yaml_text

_WHAT = "a recipe"
_MAX_PROBLEMS = 20


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a file, with `key.path=value` overrides. Raises RecipeError.

    Paths in the file are relative to its folder, those of overrides to the working directory. A recipe without a name
    is named after its file where `output_dir` contains {name}.
    """
    text = read_yaml_text(path, what=_WHAT)
    return validated(
        _tree(text, str(path)), name=str(path), overrides=overrides, folder=path.parent, default_name=path.stem
    )


def load_stored(path: Path) -> Recipe:
    """Read a recipe that a run stored in its folder. Raises StoreError when it is not as it was written."""
    try:
        return parse(read_yaml_text(path, what=_WHAT), name=str(path))
    except RecipeError as error:
        raise StoreError(
            f"{error}; the recipe in a run folder must be as the run wrote it; restore it, or choose another output_dir"
        ) from error


def parse(text: str, *, name: str = "recipe", overrides: Sequence[str] = ()) -> Recipe:
    """Parse the recipe of a YAML text; its paths stay as they are. `name` is the file name in errors. RecipeError."""
    return validated(_tree(text, name), name=name, overrides=overrides)


def validated(
    tree: dict[str, Any],
    *,
    name: str = "recipe",
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    default_name: str | None = None,
) -> Recipe:
    """Return the recipe of nested mappings. Raises RecipeError.

    `folder` is the folder to which paths are relative; without one they stay as they are. `default_name` is the name of
    a recipe without one where `output_dir` contains {name}.
    """
    overridden = [_override(tree, override) for override in overrides]
    return _validated(named_after(tree, default_name), name, overridden, folder)


def patched(recipe: Recipe, keys: Mapping[str, Any]) -> Recipe:
    """Return the recipe with other values at some `key.path`s. Raises RecipeError, which names the key."""
    tree = recipe.model_dump(mode="json")
    for key, value in keys.items():
        _set(tree, key.split("."), value)
    return _validated(tree, "", ())


def _tree(text: str, name: str) -> dict[str, Any]:
    tree = parse_yaml(text, name=name, what=_WHAT)
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{name}: found no keys; a recipe is a mapping of sections; `selfreward init` writes one to start from"
        )
    return tree


def _validated(tree: Any, name: str, overridden: Sequence[KeyPath], folder: Path | None = None) -> Recipe:
    _rename_old_keys(tree, name)
    content = plain(tree, name=name)
    for path in overridden:
        _mark(content, path)
    try:
        return Recipe.model_validate(content, context=relative_to(folder))
    except ValidationError as error:
        found = explanations(tree, name, error.errors(), overridden)
        more = [f"... and {len(found) - _MAX_PROBLEMS} more"] if len(found) > _MAX_PROBLEMS else []
        raise RecipeError("\n".join([*found[:_MAX_PROBLEMS], *more])) from None


def _mark(content: Any, path: KeyPath) -> None:
    """Mark the value at a path as given on the command line."""
    *parents, last = path
    for parent in parents:
        content = content.get(parent) if isinstance(content, dict) else None
    if isinstance(content, dict) and last in content:
        content[last] = from_command_line(content[last])


def _rename_old_keys(tree: Mapping[str, Any], name: str) -> None:
    """Give keys of the version before their new names, with a warning; a key that is given twice stays and is
    refused."""
    for old, new in KEYS.items():
        (section, key), new_key = old.split("."), new.partition(".")[2]
        found = tree.get(section)
        if isinstance(found, dict) and key in found and new_key not in found:
            where = f"{name}{line_of(tree, (section, key))}"
            warnings.warn(f"{where}: {old} was renamed; it is called {new} now; rename it", FutureWarning, stacklevel=4)
            found[new_key] = found.pop(key)


def dump(recipe: Recipe, *, only_set: bool = False) -> str:
    """Return the complete recipe, with defaults, as YAML that `parse` reads back to an equal recipe.

    `only_set`: without the keys that it leaves to the machine and to the data.
    """
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    yaml.representer.add_representer(str, _represent_text)
    yaml.dump(recipe.model_dump(mode="json", exclude_unset=only_set), stream)
    return stream.getvalue()


def _represent_text(representer: Any, text: str) -> Any:
    """Represent text with control characters or unusual line ends in double quotes: unescaped, some would be lost."""
    style = None if text.replace("\n", "").isprintable() else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _override(tree: dict[str, Any], override: str) -> KeyPath:
    """Set the key of KEY=VALUE; return its path."""
    key, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise RecipeError(
            f"{override}: not KEY=VALUE; an override is a key of the recipe and its value, as in seed=3; correct it"
        )
    advice = f"quote the override for the shell, as in '{key}={{...}}', and close every bracket"
    value = parse_yaml(text, name=f"override {key}", what="its value", advice=advice) if text else None
    return _set(tree, key.split("."), plain(value))


def _section_of(text: str, name: str, key: str) -> dict[str, Any]:
    """Return the section for which a recipe has a text, so that a key in it can be set. Raises RecipeError."""
    parent = key.rpartition(".")[0]
    short = {"prompts": SHORT, "gold": "path"}.get(name, "model" if key.startswith(f"models.{name}.") else None)
    if short is None:
        raise RecipeError(
            f"override {key}: {parent} is {text!r:.60}, which has no keys; a section is needed; override {parent} "
            f"itself, as in {parent}={{...}}"
        )
    return {short: text}


def _set(tree: dict[str, Any], steps: Sequence[str], value: Any) -> KeyPath:
    """Set one key, creating missing sections above it; return its path."""
    *parents, last = steps
    node: Any = tree
    for parent in parents:
        if isinstance(text := node.get(parent), str):
            node[parent] = _section_of(text, parent, ".".join(steps))
        elif not isinstance(text, dict):
            node[parent] = {}
        node = node[parent]
    node[last] = value
    return tuple(steps)
