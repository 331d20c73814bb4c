"""Models of a run that are gone: checkpoints that were deleted, or the model to which `best` leads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from selfreward.store import Store
from selfreward.store.names import folder_of, iteration_of
from selfreward.tables import DECISION

CHECKPOINT: Final = "checkpoint"
BEST: Final = "best"


def missing_models(store: Store) -> list[Path]:
    """Return the model folders that are gone, without those that `checkpoints.keep` has removed."""
    recorded = [store.folder / folder_of(t) / CHECKPOINT for t in store.folders(CHECKPOINT)]
    best = store.folder / BEST
    has_best = best.is_symlink() or store.read_json(1, DECISION) is not None
    paths = (path.resolve() for path in (*recorded, *([best] if has_best else [])))
    return [path for path in dict.fromkeys(paths) if not path.is_dir()]


def advice_on(missing: Sequence[str], folder: Path) -> str:
    """Return how to get back the models that are gone."""
    run = folder.resolve()
    inside = [Path(path).relative_to(run) for path in missing if Path(path).is_relative_to(run)]
    ours = sorted(iteration_of(str(path)) for path in inside if path.name == CHECKPOINT)
    if not ours:
        return "the command of the run makes it again"
    return (
        f"restore it from a copy, or remove {folder_of(ours[0])} and all later ones, and the command of the run makes "
        "them again"
    )
