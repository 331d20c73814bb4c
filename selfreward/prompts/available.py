"""The numbers of prompts that the sources of a recipe have, by which its sizes are chosen before any is held out."""

from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.checked import num_checked
from selfreward.prompts.facts import read_facts
from selfreward.prompts.reading import read_prompts
from selfreward.prompts.verifiable import VerifiableGenerator
from selfreward.recipe import (
    BuiltinPrompts,
    DatasetPrompts,
    FactsPrompts,
    FilePrompts,
    PromptsSection,
    Recipe,
    VerifiablePrompts,
)
from selfreward.records import Prompt
from selfreward.sizes import Available


def count_available(recipe: Recipe, *, at_most: int) -> Available:
    """Count the prompts of a recipe, reading at most `at_most` of each source. Raises RecipeError."""
    own, evaluation = recipe.prompts, recipe.evaluation
    num_training, num_with_checks = _count(own, "train", seed=recipe.seed, at_most=at_most)
    num_to_hold_out = num_training
    is_shared = evaluation.prompts is None and not isinstance(own, VerifiablePrompts | FactsPrompts)
    if not is_shared:
        source = evaluation.prompts or own
        num_to_hold_out, num_with_checks = _count(source, "validation", seed=recipe.seed, at_most=at_most)
    return Available(
        num_training=num_training,
        num_to_hold_out=num_to_hold_out,
        is_shared=is_shared,
        checked_share=num_with_checks / max(1, num_to_hold_out),
        num_verifiable=num_checked(evaluation.verifiable, seed=recipe.seed, at_most=at_most),
    )


def _count(section: PromptsSection, part: str, *, seed: int, at_most: int) -> tuple[int, int]:
    """Return the number of prompts, and of those with checks in the user's own data."""
    if isinstance(section, VerifiablePrompts):
        generator = VerifiableGenerator(seed, num_checks=section.num_checks, check_kinds=section.check_kinds)
        return generator.available(part), 0
    if isinstance(section, FactsPrompts):
        facts = read_facts("train" if part == "train" else "held_out", section.topics)
        return len(facts), len(facts)
    prompts = read_builtin() if isinstance(section, BuiltinPrompts) else _own_prompts(section, at_most)
    return len(prompts), sum(bool(prompt.checks) for prompt in prompts)


def _own_prompts(section: FilePrompts | DatasetPrompts, at_most: int) -> list[Prompt]:
    found, _ = read_prompts(section, key="prompts", at_most=at_most)
    return found
