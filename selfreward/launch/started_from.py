"""A run that starts from a checkpoint of another run: `--from RUN@2`, where it came from, and what it has seen."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selfreward.errors import NoRunError, RecipeError, StoreError
from selfreward.launch.missing import BEST, CHECKPOINT
from selfreward.parts import PromptSource
from selfreward.recipe import Recipe
from selfreward.records import Prompt
from selfreward.store import Store
from selfreward.store.names import folder_of, iteration_of
from selfreward.store.ownership import run_folder_of
from selfreward.tables import PROMPTS

_Text = tuple[tuple[str, str], ...]


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
    if at and named is None and not folder.exists() and Path(run).expanduser().is_dir():
        raise RecipeError(
            f"--from {reference}: {number!r} is not a number; RUN@T names the checkpoint of iteration T, and RUN alone "
            f"the best one; write {run}@1, or {run}"
        )
    store = Store(folder, write=False)
    there = [t for t in store.folders(CHECKPOINT) if (folder / folder_of(t) / CHECKPOINT).is_dir()]
    link = folder / BEST
    if named is None and link.is_symlink() and link.resolve().is_dir():
        return link.resolve()
    if named in there:
        return (folder / folder_of(named) / CHECKPOINT).resolve()
    wanted = f"checkpoint of iteration {named}" if named is not None else "best checkpoint yet"
    if named is None and link.is_symlink():
        wanted = f"best checkpoint any more ({link.resolve()} is gone)"
    found = ", ".join(f"{folder}@{t}" for t in there) or "none"
    advice = "set models.policy.model to that of its recipe" if named == 0 or not there else "name one that exists"
    raise RecipeError(
        f"--from {reference}: the run has no {wanted}; it has {found} (`checkpoints.keep` removes older ones); {advice}"
    )


def start_of(recipe: Recipe) -> dict[str, Any]:
    """Return `started_from`, the run and the iteration whose checkpoint the policy is; nothing for another model."""
    found = _source(recipe)
    return {"started_from": {"run": str(found[0]), "iteration": found[1]}} if found else {}


def seen_prompts_warnings(recipe: Recipe, source: PromptSource) -> Iterator[str]:
    """Yield warnings about held-out prompts on which the starting checkpoint was trained, in its run, in the run from
    which that one started, and so on."""
    seen: dict[Path, set[_Text]] = {}
    start = _source(recipe)
    while start is not None and start[0] not in seen:
        run, last = start
        try:
            store = Store(run, write=False, earlier=True)
            seen[run] = {_text(prompt) for t in range(1, last + 1) for prompt in _prompts(store, t)}
        except StoreError as error:
            yield _unknown_run(run, last, tuple(seen), error)
            break
        start = _recorded_start(store)
    held_out = [_text(prompt) for prompt in _held_out(source)]
    runs = [run for run, texts in seen.items() if not texts.isdisjoint(held_out)]
    if num_seen := sum(any(text in texts for texts in seen.values()) for text in held_out):
        yield (
            f"models.policy: {num_seen} of the {len(held_out)} prompts that are held out here were training prompts of "
            f"{' and '.join(map(str, runs))}, so results on them are too good; use its prompts and its seed, or set "
            "evaluation.prompts"
        )


def _unknown_run(run: Path, last: int, later: Sequence[Path], error: StoreError) -> str:
    what = "is gone" if isinstance(error, NoRunError) else f"cannot be read ({error})"
    after = f", from which {later[-1]} started," if later else ""
    return (
        f"models.policy: {run}{after} {what}, so prompts that are held out here may have been training prompts of its "
        f"iterations up to {last} and cannot be counted; put the folder back, or set evaluation.prompts to prompts of "
        "another source"
    )


def _recorded_start(store: Store) -> tuple[Path, int] | None:
    """Return the run and the iteration from which a run started; None for a model that is no checkpoint of a run."""
    found = store.manifest["facts"].get("started_from")
    return (Path(found["run"]), int(found["iteration"])) if found else None


def _held_out(source: PromptSource) -> list[Prompt]:
    return [*source.validation_prompts(), *source.second_validation_prompts(), *source.test_prompts()]


def _prompts(store: Store, t: int) -> Iterator[Prompt]:
    return store.read(t, PROMPTS) if store.has(t, PROMPTS) else iter(())


def _source(recipe: Recipe) -> tuple[Path, int] | None:
    path = Path(recipe.policy.model)
    if not path.is_absolute() or path.name != CHECKPOINT or (run := run_folder_of(path)) is None:
        return None
    return run, iteration_of(str(path.relative_to(run)))


def _text(prompt: Prompt) -> _Text:
    return tuple((message.role, message.content) for message in prompt.messages if message.role != "system")
