"""The inputs of a run, and the check that a resumed run has the same ones: models, prompts, versions."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from selfreward import recipe_file
from selfreward.errors import RecipeError
from selfreward.launch.versions import installed_versions
from selfreward.recipe import Recipe
from selfreward.records import Checkpoint
from selfreward.store import Store
from selfreward.tools import Tools

_HELD_OUT = tuple(
    ("prompts", name, "sha256") for name in ("validation", "second_validation", "test", "verifiable", "gold")
)


def facts_of(recipe: Recipe, tools: Tools, *, warnings: Sequence[str]) -> dict[str, Any]:
    """Return provenance for the manifest and the report."""
    return {
        "versions": installed_versions(),
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "recipe_sha256": hashlib.sha256(recipe_file.dump(recipe).encode()).hexdigest(),
        "models": _models(recipe, tools.models),
        "endpoints": {name: {"model": section.model} for name, section in recipe.endpoints.items()},
        "prompts": tools.source.facts(),
        "warnings": list(warnings),
    }


def refuse_other_inputs(store: Store, facts: Mapping[str, Any]) -> None:
    """Refuse a resumed run whose models or held-out prompts changed, even under the same names in the recipe."""
    before = store.manifest["facts"]
    for path in (*(("models", name, "id") for name in facts["models"]), *_HELD_OUT):
        then, now = _value_at(before, path), _value_at(facts, path)
        if then is not None and then != now:
            raise RecipeError(
                f"{store.folder}: {path[0]}.{path[1]} was {then[:12]} at the start of the run and is now "
                f"{now and now[:12]}; models and held-out prompts may not change during a run; restore them, "
                "or set another output_dir"
            )


def _models(recipe: Recipe, models: Mapping[str, Checkpoint]) -> dict[str, dict[str, str]]:
    return {
        name: {"source": recipe.local_models[name].model if name in recipe.models else "policy", "id": model.id}
        for name, model in models.items()
    }


def _value_at(facts: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts
