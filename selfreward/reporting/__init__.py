"""What people read: a page for each iteration, and a page and a JSON file for the run."""

from typing import TYPE_CHECKING

from selfreward.recipe import Recipe

if TYPE_CHECKING:
    from selfreward.reporting.reporter import RunReporter
    from selfreward.store import Store


def build(store: "Store", *, recipe: Recipe) -> "RunReporter":
    """The reporter of a run folder; the recipe's note and the run's warnings are said on top of every page."""
    from selfreward.reporting.reporter import RunReporter

    warnings = [f"Warning: {warning}." for warning in store.manifest["facts"].get("warnings", ())]
    return RunReporter(store, recipe=recipe, banner=" ".join(filter(None, (recipe.note, *warnings))) or None)
