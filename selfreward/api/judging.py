"""`selfreward.judge`: runs a judge on rows of prompts and responses."""

import hashlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfreward.api.recipes import Overrides, RecipeLike, recipe_of
from selfreward.commands.judge import judge_folder
from selfreward.commands.judge_input import InputRows, read_rows
from selfreward.commands.judge_result import JudgeResult
from selfreward.commands.judge_rows import judged_rows
from selfreward.errors import RecipeError
from selfreward.prompts.files import Row, dataset_rows, open_rows
from selfreward.prompts.unusable import UnusableRow
from selfreward.recipe import Recipe

if TYPE_CHECKING:
    import datasets

_UNUSED = {"output_dir": "judge", "prompts": {"kind": "builtin"}}
"""What a recipe needs and a judge does not."""


def judge(
    recipe: RecipeLike,
    rows: "str | os.PathLike[str] | datasets.Dataset | Iterable[Mapping[str, Any]]",
    overrides: Overrides = (),
    *,
    model: str | None = None,
) -> JudgeResult:
    """See `selfreward.judge`."""
    full = judge_recipe_of(recipe, overrides, model)
    read = rows_of(rows)
    # Replies of endpoints and their budget belong to these rows, as those of the command to its output.
    name = f"rows-{hashlib.sha256(repr(read).encode('utf-8', 'replace')).hexdigest()[:12]}"
    with judged_rows(full, read, place=judge_folder(), name=name) as result:
        for warning in result.warnings:
            warnings.warn(warning, stacklevel=3)
        return result


def judge_recipe_of(recipe: RecipeLike, overrides: Overrides = (), model: str | None = None) -> Recipe:
    """Return a complete recipe. A dict may be only its section `judging`, with `model`. Raises RecipeError."""
    if model is not None and not _is_section(recipe):
        raise RecipeError(
            "model: it is for a dict that is only the section `judging`; this recipe names its models; remove `model`, "
            "or set models.policy.model"
        )
    if not isinstance(recipe, Mapping):
        return recipe_of(recipe, overrides)
    if not _is_section(recipe):
        return recipe_of({**_UNUSED, **recipe}, overrides)
    if model is None:
        raise RecipeError(
            'model: missing; a judge that is only a section needs the model that judges, as in judge({"kind": '
            '"likelihood"}, rows, model="Qwen/Qwen2.5-0.5B-Instruct"); give it, or a complete recipe'
        )
    return recipe_of({**_UNUSED, "models": {"policy": {"model": model}}, "judging": recipe}, overrides)


def rows_of(rows: Any) -> InputRows:
    """Read a path, a `datasets.Dataset` or an iterable of dicts. Raises RecipeError."""
    if isinstance(rows, str | os.PathLike):
        return read_rows(open_rows(str(Path(rows))), name=str(rows))
    if isinstance(rows, Mapping):
        found = f"a {type(rows).__name__} of {', '.join(map(repr, rows)) or 'nothing'}"
        raise RecipeError(
            f"rows: {found:.200}; a list of dicts, a datasets.Dataset or a path is needed; put a single row into a "
            "list, or choose one split"
        )
    if _is_dataset(rows):
        return read_rows(dataset_rows(rows, "rows"), name="rows")
    if not isinstance(rows, Iterable):
        raise RecipeError(
            f"rows: found {type(rows).__name__}; allowed are a list of dicts, a datasets.Dataset and a path; convert it"
        )
    return read_rows(_rows(rows), name="rows")


def _is_section(recipe: object) -> bool:
    return isinstance(recipe, Mapping) and "kind" in recipe and "models" not in recipe


def _is_dataset(rows: object) -> bool:
    """Return whether these are rows of the `datasets` library, without importing it."""
    library = sys.modules.get("datasets")
    return library is not None and isinstance(rows, library.Dataset | library.IterableDataset)


def _rows(rows: Iterable[Any]) -> Iterator[Row]:
    for number, row in enumerate(rows, start=1):
        unusable = UnusableRow("wrong_type", f"its type is {type(row).__name__}", "a row is a dict; convert it")
        yield Row(f"rows, row {number}", f"row-{number}", row if isinstance(row, Mapping) else unusable)
