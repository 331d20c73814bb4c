"""The inputs of a run, and the check that a resumed run has the same: models, prompts, files of judges, versions."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward import judging, recipe_file
from selfreward.errors import RecipeError
from selfreward.judging.constitution import read_principles
from selfreward.launch.versions import installed_versions
from selfreward.monitoring import interventions
from selfreward.recipe import ConstitutionSection, Recipe, VerifiablePrompts
from selfreward.records import Checkpoint
from selfreward.store import Store
from selfreward.store.model_folder import changed_files, files_sha256
from selfreward.tools import Tools

_HELD_OUT = tuple(
    ("prompts", name, key)
    for name in ("validation", "second_validation", "test", "verifiable", "gold")
    for key in ("sha256", "references_sha256")
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
        "inputs": _input_files(recipe, tools),
        "warnings": list(warnings),
    }


def refuse_other_inputs(store: Store, facts: Mapping[str, Any]) -> None:
    """Refuse a resumed run whose inputs changed, even under the same names in the recipe.

    These are the models with all their files, the prompts, and the files of the judges. What an earlier version did not
    record is not compared.
    """
    before = store.manifest["facts"]
    for path in (*(("models", name, "id") for name in facts["models"]), *_HELD_OUT):
        then, now = _value_at(before, path), _value_at(facts, path)
        if then is not None and then != now:
            raise _refusal(
                store, f"{path[0]}.{path[1]} was {then[:12]} at the start of the run and is now {now and now[:12]}"
            )
    for name, model in facts["models"].items():
        then = _value_at(before, ("models", name, "files"))
        if then is not None and (changed := changed_files(then, model.get("files", {}))):
            raise _refusal(store, f"models.{name}: since the start of the run {', '.join(changed)} changed")
    for name, now in facts["inputs"].items():
        if _value_at(before, ("inputs", name)) not in (None, now):
            raise _refusal(store, f"{name} changed since the start of the run")


def _refusal(store: Store, found: str) -> RecipeError:
    return RecipeError(
        f"{store.folder}: {found}; models, prompts and judges' files may not change during a run; restore them, or set "
        "another output_dir"
    )


def _models(recipe: Recipe, models: Mapping[str, Checkpoint]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "source": recipe.local_models[name].model if name in recipe.models else "policy",
            "id": model.id,
            **({"files": files_sha256(model.path)} if name in recipe.models else {}),
        }
        for name, model in models.items()
    }


def _input_files(recipe: Recipe, tools: Tools) -> dict[str, str]:
    """Return the hashes of the other inputs: principles, and training prompts, which iterations to come will take.

    From a generator only as many prompts are read as `iterations.max` may need.
    """
    recipes = (recipe, *interventions.variants(recipe).values())
    hashes = {
        f"judging.principles {judge.principles}": hashlib.sha256(repr(read_principles(Path(judge.principles))).encode())
        for each in recipes
        for judge in judging.members(each.judging)
        if isinstance(judge, ConstitutionSection)
    }
    fixed = {name: digest.hexdigest() for name, digest in hashes.items()}
    if not isinstance(recipe.prompts, VerifiablePrompts):
        training = tools.source.facts()["training"]
        fixed["prompts.training"] = training["sha256"] + training.get("references_sha256", "")
    return fixed


def _value_at(facts: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts
