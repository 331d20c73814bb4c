"""The recorded cost of a run that has started."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selfreward import recipe_file
from selfreward.history import has_begun, stored_recipe
from selfreward.recipe import Recipe
from selfreward.store import Store
from selfreward.tables import DECISION, EVALUATION, TRAINING


@dataclass(frozen=True)
class History:
    """Seconds and engine counters of finished stages, by iteration and stage. Empty before the run starts.

    `num_pairs` are the pairs that each iteration was trained on; `finished` are the iterations that are finished,
    including their evaluation.
    """

    seconds: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    usage: Mapping[int, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    num_pairs: Mapping[int, float] = field(default_factory=dict)
    finished: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()


def started_recipe(folder: Path) -> Recipe | None:
    """Return the recipe that the run in this folder began with; None if none was started. Raises StoreError."""
    return stored_recipe(folder) if has_begun(folder) else None


def read_history(folder: Path, recipe: Recipe) -> History:
    """Read the history of a run; only a warning for the folder of another recipe. Raises StoreError."""
    started_with = started_recipe(folder)
    if started_with is None:
        return History()
    _, fixed = recipe_file.changed_keys(started_with, recipe)
    if fixed:
        return History(
            warnings=(
                f"{folder} contains a run of another recipe ({'; '.join(fixed)}): `selfreward run` would refuse this "
                "recipe, and the rates of that run are not used here",
            )
        )
    store = Store(folder, write=False)
    numbers = range(recipe.iterations.max + 1)
    trainings = {number: store.read_json(number, TRAINING) for number in numbers}
    return History(
        seconds={number: found for number in numbers if (found := store.seconds_by_stage(number))},
        usage={number: counters for number in numbers if (counters := store.usage_by_stage(number))},
        num_pairs={number: metrics["num_pairs"] for number, metrics in trainings.items() if metrics},
        finished=frozenset(n for n in numbers if store.read_json(n, EVALUATION if n == 0 else DECISION) is not None),
    )
