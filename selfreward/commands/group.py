"""Groups of runs: the seeds of `submit --seeds`, and the values and seeds of `ablate`, each with its own run folder."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from selfreward import recipe_file
from selfreward.begun import run_folder
from selfreward.errors import RecipeError
from selfreward.launch.group import Member
from selfreward.recipe import Recipe
from selfreward.yaml_text import parse_yaml, plain

_MAX_SEEDS = 1000  # in a range: each seed is a run
_MAX_VALUE = 40  # characters of a value in the name of a folder


class Task(NamedTuple):
    """A run of a group: its recipe, and the overrides that make it from that of the command."""

    member: Member
    recipe: Recipe
    overrides: Sequence[str]


class Tasks(NamedTuple):
    folder: Path
    tasks: Sequence[Task]


def seeds_in(text: str) -> list[int]:
    """Return the seeds of `0-4`, `0,3,7` or `0-2,7`. Raises RecipeError."""
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})(?:-(\d{1,9}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not 0 <= last - first < _MAX_SEEDS:
            raise RecipeError(
                f"--seeds: found {text!r}; seeds and ranges of them are allowed, such as 0-4 or 0,3,7, of at most "
                f"{_MAX_SEEDS:,} seeds each; correct it"
            )
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def of_seeds(path: Path, overrides: Sequence[str], seeds: Sequence[int]) -> Tasks:
    """Return a run for each seed, in the run folder that the recipe gives it. Raises RecipeError."""
    tasks: list[Task] = []
    for seed in seeds:
        own = [*overrides, f"seed={seed}"]
        recipe = recipe_file.load(path, own)
        tasks.append(Task(Member(run_folder(recipe).absolute(), {"seed": seed}), recipe, own))
    folders = {task.member.folder for task in tasks}
    if len(folders) < len(tasks):
        raise RecipeError(
            f"output_dir: {tasks[0].recipe.output_dir} is the folder of several seeds; each run needs its own; add "
            "output_dir='runs/{name}-{seed}', in quotes, to the command"
        )
    first = tasks[0].recipe
    return Tasks(tasks[0].member.folder.parent / f"{first.name}-seeds", tasks)


def of_ablation(path: Path, overrides: Sequence[str], vary: Sequence[str], num_seeds: int) -> Tasks:
    """Return a run for each combination of values and each seed, in one folder. Raises RecipeError."""
    if num_seeds < 1:
        raise RecipeError(f"--seeds: found {num_seeds}; the number of seeds is at least 1; correct it")
    varied = dict(map(_varied, vary))
    if len(varied) < len(vary):
        raise RecipeError("--vary: a key is given twice; each may be given once; put all of its values into one --vary")
    base = recipe_file.load(path, overrides)
    folder = run_folder(base).absolute().parent / f"{base.name}-ablation"
    tasks: list[Task] = []
    for values in _combinations({**varied, "seed": range(num_seeds)}):
        run = folder / _name_of(values)
        own = [*overrides, *(f"{key}={json.dumps(value)}" for key, value in values.items())]
        own.append(f"output_dir={json.dumps(str(run))}")
        tasks.append(Task(Member(run, values), recipe_file.load(path, own), own))
    names = [task.member.folder.name for task in tasks]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise RecipeError(
            f"--vary: two runs would be called {double}; each value may be given once; correct the values"
        )
    return Tasks(folder, tasks)


def _varied(text: str) -> tuple[str, list[Any]]:
    """Return the key and the values of KEY=A,B,C."""
    key, separator, values = text.partition("=")
    if not separator or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key) or not values.strip():
        raise RecipeError(
            f"--vary: found {text!r}; a key of the recipe and its values are allowed, as in judging.num_draws=1,3,11"
        )
    if key in ("seed", "output_dir", "name") or key.split(".")[0] == "launch":
        raise RecipeError(
            f"--vary: found {key}, which the runs of an ablation share or are given; a key of the method is allowed; "
            "use --seeds for seeds, and KEY=VALUE for the rest"
        )
    found = plain(parse_yaml(f"[{values}]", name=f"--vary {key}", what="its values"))
    return key, list(found)


def _combinations(varied: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*varied.values()):
        yield dict(zip(varied, values, strict=True))


def _name_of(values: Mapping[str, Any]) -> str:
    """Return a name such as num_draws=3_seed=0."""
    last = [key.rpartition(".")[2] for key in values]
    names = [short if last.count(short) == 1 else key for key, short in zip(values, last, strict=True)]
    return "_".join(f"{name}={_short(value)}" for name, value in zip(names, values.values(), strict=True))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^\w.+-]+", "-", text).strip("-")[:_MAX_VALUE] or "-"
