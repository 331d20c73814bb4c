"""`selfreward init`: a recipe to start from, one of those that are shipped with the package."""

from collections.abc import Iterator
from pathlib import Path

import selfreward
from selfreward.errors import RecipeError
from selfreward.store.files import write_text_atomically

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


def init(name: str | None, *, force: bool = False, folder: Path | None = None) -> list[Path]:
    """Write a shipped recipe, and the files that it names, into a folder; return the paths, the recipe's first.

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
    write_text_atomically(file, source.read_text(encoding="utf-8"))
    return [file, *_write_named_files(source, file.parent)]


def _write_named_files(recipe: Path, folder: Path) -> Iterator[Path]:
    """Write the other shipped files that the text of a recipe names, unless they exist."""
    text = recipe.read_text(encoding="utf-8")
    for path in sorted(recipe.parent.glob("*/*")):
        name = path.relative_to(recipe.parent)
        if name.as_posix() in text and not (folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            write_text_atomically(folder / name, path.read_text(encoding="utf-8"))
            yield folder / name


def _first_comment(recipe: Path) -> str:
    line = next(iter(recipe.read_text(encoding="utf-8").splitlines()), "")
    return line.removeprefix("#").strip() if line.startswith("#") else ""
