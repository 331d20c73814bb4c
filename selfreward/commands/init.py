"""`selfreward init`: a recipe to start from, one of those that are shipped with the package."""

import re
from pathlib import Path

import selfreward
from selfreward.errors import RecipeError
from selfreward.store.files import write_text_atomically

_SHIPPED = re.compile(r"\brecipes/([\w-]+\.yaml)")
"""Another shipped recipe, or the same one, which `init` writes into the working directory."""
_PLAN = re.compile(r"`(selfreward plan [^`\n]+ --gpu [^`\n]+)`")
STARTER = "starter"
"""The recipe for one's own data; it is written to recipe.yaml."""


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name. Raises RecipeError when the installation has none."""
    package = Path(selfreward.__file__).parent
    folders = (package / "recipes", package.parent / "recipes")  # of a wheel; of a checkout
    found = next((folder for folder in folders if (folder / f"{STARTER}.yaml").is_file()), None)
    if found is None:
        raise RecipeError(f"{folders[0]}: no recipes; an installed package contains them; install it again")
    return {path.stem: path for path in sorted(found.glob("*.yaml"))}


def listed() -> str:
    """Return the names of all shipped recipes, with what each is for."""
    recipes = shipped_recipes()
    width = max(map(len, recipes))
    return "\n".join(f"{name:{width}}  {_first_comment(path)}" for name, path in recipes.items())


def init(name: str | None, *, force: bool = False, folder: Path | None = None) -> Path:
    """Write a shipped recipe into a folder; return its path.

    Without a name it is the starter, as recipe.yaml; else NAME.yaml. Raises RecipeError for an unknown name, or when a
    file exists and `force` is false.
    """
    recipes = shipped_recipes()
    name = name.removesuffix(".yaml") if name else None
    source = recipes.get(name or STARTER)
    if source is None:
        raise RecipeError(
            f"{name}: no recipe of this name; there are {', '.join(recipes)}; `selfreward init --list` describes them"
        )
    file = (folder or Path()) / ("recipe.yaml" if name is None else f"{name}.yaml")
    if file.exists() and not force:
        raise RecipeError(f"{file}: exists already, and nothing is overwritten; remove it, or add --force")
    write_text_atomically(file, _SHIPPED.sub(r"\1", source.read_text(encoding="utf-8")))
    return file


def next_commands(file: Path, name: str | None) -> list[str]:
    """Return the commands to type after `init`: a recipe whose comment plans it for a GPU is planned first."""
    if name is None:
        return [f"selfreward validate {file}"]
    return [*_PLAN.findall(file.read_text(encoding="utf-8")), f"selfreward run {file}"]


def _first_comment(recipe: Path) -> str:
    line = next(iter(recipe.read_text(encoding="utf-8").splitlines()), "")
    return line.removeprefix("#").strip() if line.startswith("#") else ""
