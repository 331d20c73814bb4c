"""The reports of a run: a Markdown page for each iteration, and an HTML page and a JSON file for the run."""

from typing import TYPE_CHECKING

from selfreward.recipe import Recipe

if TYPE_CHECKING:
    from selfreward.reporting.reporter import RunReporter
    from selfreward.store import Store


def build(store: "Store", *, recipe: Recipe) -> "RunReporter":
    """Return the reporter of a run folder. Every page starts with the recipe's note and the run's warnings."""
    from selfreward.reporting.reporter import RunReporter

    warnings = [f"Warning: {warning}." for warning in store.manifest["facts"].get("warnings", ())]
    return RunReporter(store, recipe=recipe, banner=" ".join(filter(None, (recipe.note, *warnings))) or None)
