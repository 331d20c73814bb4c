"""The sizes that a recipe leaves open: they follow the number of its prompts.

With enough prompts they are the defaults of the schema. With fewer, a third of the prompts is held out for validation,
the others are divided among the iterations, and the remaining sizes follow from these two. `evaluation.preset` gives
the largest sizes of the evaluation; a key that the recipe sets always wins. A run stores the sizes with which it began.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from selfreward.recipe import EXTRA_SPLITS_FROM, IterationsSection, MonitorSection, Recipe, TrainingSection

S = TypeVar("S", bound=BaseModel)

STANDARD_FROM: Final = 1000
"""Number of prompts from which on `evaluation.preset` is `standard` where it is not set, below it `light`."""

MIN_VALIDATION: Final = 2
MIN_BLOCK: Final = 16
"""Prompts of an iteration below which there is one iteration fewer instead: two pairs for each optimizer step."""

PROMPTS_PER_PAIR: Final = 3
"""One pair in this number of prompts is enough to train on; at most the schema's `monitor.min_pairs`."""

STEPS_PER_ITERATION: Final = 8
"""Batches are smaller where an iteration would otherwise have fewer optimizer steps than this."""

PROMPTS_PER_JUDGE_PROMPT: Final = 4
"""The judge is measured on one in this number of an iteration's prompts; at most the preset's number."""


@dataclass(frozen=True)
class Preset:
    """The largest sizes of an evaluation. `num_sets` is 3 with a second validation set and a test set."""

    num_prompts: int
    num_judge_prompts: int
    self_judge: bool = True
    num_sets: int = 1


PRESETS: Final[Mapping[str, Preset]] = {
    "light": Preset(num_prompts=64, num_judge_prompts=8, self_judge=False),
    "standard": Preset(num_prompts=128, num_judge_prompts=64),
    "full": Preset(num_prompts=800, num_judge_prompts=128, num_sets=3),
}
LARGEST: Final = max(preset.num_sets * preset.num_prompts for preset in PRESETS.values())

KEYS: Final = (
    "name",
    "evaluation.preset",
    "evaluation.num_prompts",
    "evaluation.num_second_validation_prompts",
    "evaluation.num_test_prompts",
    "evaluation.verifiable",
    "evaluation.verifiable.num_prompts",
    "evaluation.self_judge",
    "evaluation.num_judge_prompts",
    "iterations.max",
    "iterations.num_prompts_per_iteration",
    "monitor.horizon",
    "monitor.min_pairs",
    "training.batch_size",
)
"""The keys that take their value from here, or in a run that has begun from its stored recipe, where they are not
set."""


@dataclass(frozen=True)
class Available:
    """The prompts of a recipe's sources before any is held out.

    `num_training` are those of `prompts`, `num_to_hold_out` those of the source of the held-out sets, which may be the
    same ones (`is_shared`); `checked_share` of them have checks. `num_verifiable` are those of `evaluation.verifiable`.
    """

    num_training: int
    num_to_hold_out: int
    is_shared: bool = True
    checked_share: float = 0.0
    num_verifiable: int = 0


def enough(recipe: Recipe) -> int:
    """Return a number of prompts from which on more of them change no size, even if half of them overlap."""
    evaluation, iterations = recipe.evaluation, recipe.iterations
    held_out = evaluation.num_prompts + evaluation.second_validation_size + evaluation.test_size
    num_blocks = max(iterations.max, recipe.monitor.horizon)
    return 2 * (max(held_out, 2 * LARGEST) + num_blocks * iterations.num_prompts_per_iteration)


def is_complete(recipe: Recipe) -> bool:
    """Return whether the recipe sets every size."""
    return all(_is_set(recipe, key) for key in KEYS)


def sized(recipe: Recipe, available: Available, *, num_left: Callable[[Recipe], int]) -> Recipe:
    """Return the recipe with every size set.

    `num_left` returns how many prompts are left for training when the held-out sets of this recipe are taken.
    """
    recipe = _filled(recipe, {"name": recipe.name, **_of_evaluation(recipe, available)})
    left = num_left(recipe)
    recipe = _filled(recipe, _of_iterations(recipe, left))
    return _filled(recipe, _of_blocks(recipe, left))


def as_begun(recipe: Recipe, before: Recipe) -> Recipe:
    """Return the recipe with the name and the sizes of the run that began with `before`, where it sets none."""
    return _filled(recipe, {key: value for key in KEYS if (value := _value(before, key)) is not None})


def _of_evaluation(recipe: Recipe, available: Available) -> dict[str, Any]:
    section, num_prompts = recipe.evaluation, available.num_to_hold_out
    is_small = available.num_training < STANDARD_FROM
    name = section.preset if _is_set(recipe, "evaluation.preset") else "light" if is_small else "standard"
    preset = PRESETS[name]
    free = num_prompts - _requested_extra(recipe)
    share = free // max(3, 2 * preset.num_sets) if available.is_shared else free // preset.num_sets
    room = free - (_requested_for_training(recipe) if available.is_shared else 0)
    fitting = max(0, min(preset.num_prompts, share, room // preset.num_sets))
    size = max(MIN_VALIDATION, fitting)
    is_checked = available.checked_share >= 0.5 and not _is_set(recipe, "evaluation.verifiable")
    num_validation = section.num_prompts if _is_set(recipe, "evaluation.num_prompts") else size
    too_many = num_validation >= EXTRA_SPLITS_FROM and 3 * num_validation > room
    extra = fitting if preset.num_sets > 1 else 0 if too_many else None
    return {
        "evaluation.preset": name,
        "evaluation.num_prompts": size,
        "evaluation.num_second_validation_prompts": extra,
        "evaluation.num_test_prompts": extra,
        "evaluation.verifiable": "validation" if is_checked else section.verifiable,
        "evaluation.verifiable.num_prompts": max(1, min(preset.num_prompts, max(share, 2), available.num_verifiable)),
        "evaluation.self_judge": preset.self_judge,
    }


def _requested_for_training(recipe: Recipe) -> int:
    """Return the training prompts that the recipe's keys ask for; at least one."""
    section = recipe.iterations
    num_iterations = section.max if _is_set(recipe, "iterations.max") else 1
    block = section.num_prompts_per_iteration if _is_set(recipe, "iterations.num_prompts_per_iteration") else 1
    return num_iterations * block


def _requested_extra(recipe: Recipe) -> int:
    """Return the prompts that the recipe asks for in the second validation set and the test set."""
    section = recipe.evaluation
    return (section.num_second_validation_prompts or 0) + (section.num_test_prompts or 0)


def _of_iterations(recipe: Recipe, left: int) -> dict[str, int]:
    most, section = IterationsSection(), recipe.iterations
    block = section.num_prompts_per_iteration if _is_set(recipe, "iterations.num_prompts_per_iteration") else MIN_BLOCK
    fitting = max(1, min(most.max, left // block))
    num_iterations = section.max if _is_set(recipe, "iterations.max") else fitting
    return {
        "iterations.max": fitting,
        "iterations.num_prompts_per_iteration": max(1, min(most.num_prompts_per_iteration, left // num_iterations)),
    }


def _of_blocks(recipe: Recipe, left: int) -> dict[str, int]:
    """Return the sizes that follow from that of an iteration; the horizon is the number of iterations with prompts."""
    block, most = recipe.iterations.num_prompts_per_iteration, MonitorSection()
    return {
        "evaluation.num_judge_prompts": max(
            1, min(PRESETS[recipe.evaluation.preset].num_judge_prompts, block // PROMPTS_PER_JUDGE_PROMPT)
        ),
        "monitor.horizon": max(1, min(most.horizon, left // block)),
        "monitor.min_pairs": max(1, min(most.min_pairs, block // PROMPTS_PER_PAIR)),
        "training.batch_size": max(1, min(TrainingSection().batch_size, block // STEPS_PER_ITERATION)),
    }


def _filled(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return the recipe with these values of the keys that it does not set."""
    for key, value in values.items():
        if not _is_set(recipe, key):
            recipe = _with(recipe, key.split("."), value)
    return recipe


def _is_set(section: BaseModel, key: str) -> bool:
    """Return whether the recipe sets a key, or sets a section above it to something that has no such key."""
    name, _, rest = key.partition(".")
    value = getattr(section, name)
    if rest and isinstance(value, BaseModel):
        return _is_set(value, rest)
    return bool(rest) or name in section.model_fields_set


def _value(section: BaseModel, key: str) -> Any:
    """Return the value of a key; None where a section above it has no such key."""
    name, _, rest = key.partition(".")
    value = getattr(section, name)
    return (_value(value, rest) if isinstance(value, BaseModel) else None) if rest else value


def _with(section: S, path: list[str], value: Any) -> S:
    name, *rest = path
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})
