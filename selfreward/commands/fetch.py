"""`selfreward fetch`: everything that a recipe needs, brought to where nodes without internet find it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from selfreward.errors import RecipeError
from selfreward.launch.local import check
from selfreward.model_files.cache import cache_root
from selfreward.recipe import Recipe
from selfreward.tools import Tools

OFFLINE: Final[Mapping[str, str]] = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_NUM_LINES: Final = 5


class Fetched(NamedTuple):
    lines: Sequence[str]
    warnings: Sequence[str]


def fetch(recipe: Recipe, path: Path, overrides: Sequence[str]) -> Fetched:
    """Download and convert the models, and download the data sets, then check that a run finds all of it offline.

    Raises RecipeError for what cannot be had, and for what would still need the internet.
    """
    tools, warnings = check(recipe)
    _require_offline(path, overrides)
    return Fetched([*_models(recipe, tools), *_data(tools), "", *exports()], warnings)


def _models(recipe: Recipe, tools: Tools) -> Iterator[str]:
    for name, section in recipe.local_models.items():
        folder = tools.models[name].path.absolute()
        files = [file for file in folder.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        yield f"models.{name}: {section.model} -> {folder} ({size / 2**20:,.1f} MiB)"


def _data(tools: Tools) -> Iterator[str]:
    facts = tools.source.facts()
    for key, part in (("prompts", "training"), ("evaluation.prompts", "validation")):
        if source := facts.get(part, {}).get("source"):
            yield f"{key}: {source}"


def exports() -> list[str]:
    """Return the lines that make a shell on a compute node find what is here, and wait for no hub."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser().absolute()
    variables = {"HF_HOME": str(home), "SELFREWARD_CACHE": str(cache_root().absolute()), **OFFLINE}
    given = {name: os.environ[name] for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE") if os.environ.get(name)}
    return [f"export {name}={shlex.quote(value)}" for name, value in (variables | given).items()]


def _require_offline(path: Path, overrides: Sequence[str]) -> None:
    """Check the recipe again, in a process that may not ask the hub."""
    settings = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "selfreward", "validate", str(path), *settings]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="backslashreplace", check=False, env=os.environ | OFFLINE
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-_NUM_LINES:])
        raise RecipeError(
            f"{path}: fetched, but not complete without internet ({last}); everything must be in the caches or in "
            "folders; for a model or data set that asks the hub all the same, download it into a folder, and give its "
            "path in the recipe"
        )
