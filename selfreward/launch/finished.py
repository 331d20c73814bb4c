"""A run that has ended: its result from its folder alone, without models, engine or slow libraries."""

from pathlib import Path

from selfreward.begun import run_folder, stored_recipe
from selfreward.launch.result import RunResult
from selfreward.launch.status import FINISHED, STATUS, stored_status
from selfreward.recipe import Recipe
from selfreward.recipe.paths import paths_in
from selfreward.recipe_changes import changed_keys
from selfreward.records import Decision
from selfreward.settled import resumed
from selfreward.store import Store
from selfreward.store.lock import is_held
from selfreward.store.names import MANIFEST
from selfreward.tables import DECISION


def finished_run(recipe: Recipe) -> RunResult | None:
    """Return the result of a finished run that this recipe would not continue; None for any other.

    The recipe is the same as the run's, or has a lower limit; no file of the run or of its best checkpoint, which may
    be the initial model, is missing, and neither they nor the inputs are newer than its end. Anything else is left to a
    resumed run, which checks hashes. Raises StoreError for a damaged run folder.
    """
    folder = run_folder(recipe)
    if not (folder / MANIFEST).is_file() or stored_status(folder).get("state") != FINISHED or is_held(folder):
        return None
    store = Store(folder, write=False)
    decisions = decisions_of(store)
    if not decisions or not decisions[-1].stops or not _is_untouched(store, recipe):
        return None
    before = stored_recipe(folder)
    now = resumed(recipe, before)
    if not all(
        _continues_nothing(change, now, len(decisions)) for keys in changed_keys(before, now) for change in keys
    ):
        return None
    return RunResult(folder, decisions[-1], was_finished=True, note=_fewer_iterations(folder, now, len(decisions)))


def decisions_of(store: Store) -> list[Decision]:
    """Return the decisions of a run, one for each finished iteration. Raises StoreError when a file was changed."""
    found: list[Decision] = []
    while (stored := store.read_json(len(found) + 1, DECISION)) is not None:
        found.append(Decision.from_json(stored))
    return found


def _continues_nothing(change: str, recipe: Recipe, num_finished: int) -> bool:
    """Return whether a changed key leaves a finished run finished: the same folder, written differently, where it would
    be computed, or a limit below what is finished, since nothing that is finished is undone."""
    is_fewer = change.startswith("iterations.max: ") and recipe.iterations.max < num_finished
    return is_fewer or change.startswith(("output_dir: ", "launch."))


def _fewer_iterations(folder: Path, recipe: Recipe, num_finished: int) -> str:
    """Return what can be done with a limit below the iterations that are finished; "" for any other."""
    if (most := recipe.iterations.max) >= num_finished:
        return ""
    return (
        f"iterations.max is {most}, but {num_finished} iterations are finished, and nothing that is finished is "
        f"undone; `--from {folder}@{most}` with another output_dir starts a run from M_{most}"
    )


def _is_untouched(store: Store, recipe: Recipe) -> bool:
    """Return whether all files of the run exist, and neither one of them nor an input is newer than its last status."""
    folder = store.folder
    entries = [folder / name for name, entry in store.manifest["files"].items() if not entry.get("removed")]
    paths = [*entries, *paths_in(recipe.model_dump(exclude={"output_dir"}))]
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else (path,))]
    try:
        end = (folder / STATUS).stat().st_mtime_ns
        reports = [(folder / name).exists() for name in ("report.json", "report.html", "best")]
        return (
            all(reports) and all(path.exists() for path in entries) and all(f.stat().st_mtime_ns <= end for f in files)
        )
    except OSError:
        return False
