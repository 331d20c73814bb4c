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

    The recipe is the same as the run's, no file of the run or of its best checkpoint, which may be the initial model,
    is missing, and neither they nor the inputs are newer than
    its end; anything else is left to a resumed run, which checks hashes. Raises StoreError for a damaged run folder.
    """
    folder = run_folder(recipe)
    if not (folder / MANIFEST).is_file() or stored_status(folder).get("state") != FINISHED or is_held(folder):
        return None
    store = Store(folder, write=False)
    decision = last_decision(store)
    if decision is None or not decision.stops or not _is_untouched(store, recipe) or not _is_same(recipe, folder):
        return None
    return RunResult(folder, decision, was_finished=True)


def last_decision(store: Store) -> Decision | None:
    """Return the newest decision of a run. Raises StoreError when its file was changed."""
    newest, t = None, 1
    while (found := store.read_json(t, DECISION)) is not None:
        newest, t = found, t + 1
    return Decision.from_json(newest) if newest else None


def _is_same(recipe: Recipe, folder: Path) -> bool:
    before = stored_recipe(folder)
    changes = [change for changed in changed_keys(before, resumed(recipe, before)) for change in changed]
    return all(change.startswith("output_dir: ") for change in changes)  # the same folder, written differently


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
