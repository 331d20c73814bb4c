"""The inputs of a run, and the check that a resumed run has the same: models, prompts, files of judges, versions."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selfreward import judging, recipe_file
from selfreward.errors import RecipeError
from selfreward.judging.constitution import read_principles
from selfreward.launch.started_from import start_of
from selfreward.launch.versions import installed_versions
from selfreward.monitoring import interventions
from selfreward.recipe import ConstitutionSection, ModelSection, Recipe, VerifiablePrompts
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
        "models": identity_of(recipe.local_models, tools.models),
        **start_of(recipe),
        "endpoints": {name: {"model": section.model} for name, section in recipe.endpoints.items()},
        "prompts": tools.source.facts(),
        "inputs": _other_inputs(recipe, tools),
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
        if now not in (_recorded_as(name, before) or [now]):
            raise _refusal(store, f"{name} changed since the start of the run")


def _recorded_as(name: str, facts: Mapping[str, Any]) -> list[Any]:
    """Return the hashes that are recorded for this kind of input; a file may have had another path."""
    kind = name.split(" ")[0]
    inputs = _value_at(facts, ("inputs",)) or {}
    return [value for key, value in inputs.items() if key.split(" ")[0] == kind]


def _refusal(store: Store, found: str) -> RecipeError:
    return RecipeError(
        f"{store.folder}: {found}; models, prompts and judges' files may not change during a run; restore them, or set "
        "another output_dir"
    )


def identity_of(models: Mapping[str, ModelSection], loaded: Mapping[str, Checkpoint]) -> dict[str, dict[str, Any]]:
    """Return source, id (of the weights) and hashes of all other files of each model, by its name.

    `models` are those of the recipe; other names in `loaded` are the policy's.
    """
    return {
        name: {
            "source": models[name].model if name in models else "policy",
            "id": model.id,
            **({"files": files_sha256(model.path)} if name in models else {}),
        }
        for name, model in loaded.items()
    }


def principles_of(recipe: Recipe) -> dict[str, str]:
    """Return the hash of the sentences in each file of principles that the recipe or an intervention names."""
    recipes = (recipe, *interventions.variants(recipe).values())
    judges = [judge for each in recipes for judge in judging.members(each.judging)]
    files = dict.fromkeys(judge.principles for judge in judges if isinstance(judge, ConstitutionSection))
    return {
        f"judging.principles {file}": hashlib.sha256(repr(read_principles(Path(file))).encode()).hexdigest()
        for file in files
    }


def _other_inputs(recipe: Recipe, tools: Tools) -> dict[str, str]:
    """Return the hashes of principles, and of training prompts, which iterations to come will take.

    From a generator only as many prompts are read as `iterations.max` may need.
    """
    fixed = principles_of(recipe)
    if not isinstance(recipe.prompts, VerifiablePrompts):
        training = tools.source.facts()["training"]
        fixed["prompts.training"] = training["sha256"] + training.get("references_sha256", "")
    return fixed


def _value_at(facts: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        facts = facts.get(key) if isinstance(facts, dict) else None
    return facts
