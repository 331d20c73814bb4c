"""A run that starts from a checkpoint of another run: `--from RUN@2`, where it came from, and what it has seen."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.parts import PromptSource
from selfreward.recipe import Recipe
from selfreward.records import Prompt
from selfreward.store import Store
from selfreward.store.names import folder_of, iteration_of
from selfreward.store.ownership import run_folder_of
from selfreward.tables import PROMPTS

CHECKPOINT = "checkpoint"


def overrides_from(reference: str | None) -> list[str]:
    """Return the overrides that make a checkpoint the policy; none without a reference. Raises RecipeError."""
    if reference is None:
        return []
    return [f"models.policy.model={json.dumps(str(checkpoint_in(reference)))}", "models.policy.revision=null"]


def checkpoint_in(reference: str) -> Path:
    """Return the folder of the checkpoint that RUN@T names, or of the best one of RUN.

    Raises RecipeError when the run does not have it, and NoRunError when RUN is no run folder.
    """
    run, at, number = reference.rpartition("@")
    named = int(number) if at and number.isdecimal() else None
    folder = Path(reference if named is None else run).expanduser()
    store = Store(folder, write=False)
    there = store.folders(CHECKPOINT)
    if named is None and (best := (folder / "best").resolve()).is_dir() and (folder / "best").is_symlink():
        return best
    if named in there:
        return (folder / folder_of(named) / CHECKPOINT).resolve()
    wanted = "best checkpoint yet" if named is None else f"checkpoint of iteration {named}"
    found = ", ".join(f"{folder}@{t}" for t in there) or "none"
    advice = "set models.policy.model to that of its recipe" if named == 0 else "name one that exists"
    raise RecipeError(
        f"--from {reference}: the run has no {wanted}; it has {found} (`checkpoints.keep` removes older ones); {advice}"
    )


def start_of(recipe: Recipe) -> dict[str, Any]:
    """Return `started_from`, the run and the iteration whose checkpoint the policy is; nothing for another model."""
    found = _source(recipe)
    return {"started_from": {"run": str(found[0]), "iteration": found[1]}} if found else {}


def seen_prompts_warnings(recipe: Recipe, source: PromptSource) -> Iterator[str]:
    """Yield a warning about held-out prompts on which the starting checkpoint was trained."""
    found = _source(recipe)
    if found is None:
        return
    run, last = found
    store = Store(run, write=False, earlier=True)
    seen = {_text(prompt) for t in range(1, last + 1) if store.has(t, PROMPTS) for prompt in store.read(t, PROMPTS)}
    held_out = [*source.validation_prompts(), *source.second_validation_prompts(), *source.test_prompts()]
    if num_seen := sum(_text(prompt) in seen for prompt in held_out):
        yield (
            f"models.policy: {num_seen} of the {len(held_out)} prompts that are held out here were training prompts of "
            f"{run}, so results on them are too good; use its prompts and its seed, or set evaluation.prompts"
        )


def _source(recipe: Recipe) -> tuple[Path, int] | None:
    path = Path(recipe.policy.model)
    if not path.is_absolute() or path.name != CHECKPOINT or (run := run_folder_of(path)) is None:
        return None
    return run, iteration_of(str(path.relative_to(run)))


def _text(prompt: Prompt) -> tuple[tuple[str, str], ...]:
    return tuple((message.role, message.content) for message in prompt.messages if message.role != "system")
