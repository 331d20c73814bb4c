"""Sources of prompts (built-in, files, dataset, generator), split into disjoint sets and checked for overlap."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import assert_never

from selfreward import sizes
from selfreward.errors import RecipeError
from selfreward.prompts import facts
from selfreward.prompts.available import count_available
from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.checked import checked_prompts, generated
from selfreward.prompts.facts import PARTS, read_facts
from selfreward.prompts.gold import read_gold
from selfreward.prompts.held_out import Fit, always_fits, gaps
from selfreward.prompts.pool import Pool, in_seeded_order, with_system_prompt
from selfreward.prompts.reading import name_of, read_prompts
from selfreward.prompts.recipe_problems import problems
from selfreward.prompts.source import SplitSource
from selfreward.prompts.stages import fresh
from selfreward.prompts.verifiable import VerifiableGenerator, boilerplate
from selfreward.recipe import (
    BuiltinPrompts,
    DatasetPrompts,
    EvaluationSection,
    FactsPrompts,
    FilePrompts,
    IterationsSection,
    PromptsSection,
    Recipe,
    VerifiablePrompts,
)

MIN_PROMPTS = sizes.MIN_VALIDATION + 1


@dataclass(frozen=True)
class Fits:
    """Why a prompt is left out of the training prompts, and of the held-out ones; None for one that is not."""

    training: Fit = always_fits
    held_out: Fit = always_fits


def sized(recipe: Recipe, *, fits_of: Callable[[Recipe], Fits] = lambda _: Fits()) -> Recipe:
    """Return the recipe with every size set, by the number of its prompts. Raises RecipeError.

    With few prompts, those to which the policy cannot respond do not count; `fits_of` loads what tells them.
    """
    if sizes.is_complete(recipe):
        return recipe
    enough = sizes.enough(recipe)
    available = count_available(recipe, at_most=enough)
    if available.is_shared and available.num_training < MIN_PROMPTS:
        raise RecipeError(
            f"prompts: found {available.num_training}; at least {MIN_PROMPTS} are needed, {sizes.MIN_VALIDATION} to "
            "measure on and one to train on; add prompts"
        )
    # A generator makes only as many prompts as its iterations need.
    block = 1 if available.is_shared else max(1, available.num_training // 2)
    probe = IterationsSection(max=1, num_prompts_per_iteration=block)

    def num_left(found: Recipe) -> int:
        if available.num_training >= enough:
            return enough // 2  # more may be left, which changes nothing; with fewer `build` refuses the recipe
        fits = fits_of(found)
        source = build(found.prompts, evaluation=found.evaluation, iterations=probe, seed=found.seed, fits=fits)
        return source.num_usable

    return sizes.sized(recipe, available, num_left=num_left)


def build(
    section: PromptsSection,
    *,
    evaluation: EvaluationSection,
    iterations: IterationsSection,
    seed: int,
    fits: Fits = Fits(),
) -> SplitSource:
    """Read and split the prompts of a run. Raises RecipeError for input that cannot be used.

    The verifiable prompts get the system prompt of `section`, with which the policy is trained.
    """
    num_training = iterations.max * iterations.num_prompts_per_iteration
    num_held_out = evaluation.num_prompts + evaluation.second_validation_size + evaluation.test_size
    other = evaluation.prompts
    checked = checked_prompts(evaluation.verifiable, seed=seed)
    gold, gold_summary = read_gold(evaluation.gold.path) if evaluation.gold is not None else ((), None)
    return SplitSource(
        _pool(section, seed=seed, num_training=num_training, num_held_out=num_held_out),
        other=None
        if other is None
        else _pool(other, seed=seed, num_training=0, num_held_out=num_held_out, key="evaluation.prompts"),
        verifiable=with_system_prompt(checked.prompts, section.system_prompt),
        verifiable_left_out=checked.left_out,
        checks_validation=checked.is_validation,
        num_validation=evaluation.num_prompts,
        num_second_validation=evaluation.second_validation_size,
        num_test=evaluation.test_size,
        gold=gold,
        gold_summary=gold_summary,
        iterations=iterations,
        boilerplate=[*boilerplate(), *facts.boilerplate()],
        gaps=gaps(evaluation),
        fit_training=fits.training,
        fit_held_out=fits.held_out,
    )


def _pool(section: PromptsSection, *, seed: int, num_training: int, num_held_out: int, key: str = "prompts") -> Pool:
    match section:
        case BuiltinPrompts():
            prompts = in_seeded_order(read_builtin(), seed=seed)
            pool = Pool("the built-in set", prompts, how_to_add="use your own file: `prompts: FILE.jsonl`")
        case FilePrompts() | DatasetPrompts():
            found, summary = read_prompts(section, key=key)
            pool = Pool(name_of(section), in_seeded_order(found, seed=seed), summary=summary)
        case VerifiablePrompts():
            generator = VerifiableGenerator(seed, num_checks=section.num_checks, check_kinds=section.check_kinds)
            # Twice the number needed, because up to half may overlap with evaluation prompts.
            pool = Pool(
                "the verifiable generator",
                generated(generator, "train", min(2 * num_training, generator.available("train"))),
                held_out=generated(generator, "validation", min(2 * num_held_out, generator.available("validation"))),
                how_to_add="allow more check_kinds",
            )
        case FactsPrompts():
            train, others = (in_seeded_order(read_facts(part, section.topics), seed=seed) for part in PARTS)
            pool = Pool("the facts", train, held_out=others, how_to_add="use `kind: file` with your own questions")
        case _:
            assert_never(section)
    turn = section.system_prompt
    held_out = None if pool.held_out is None else with_system_prompt(pool.held_out, turn)
    return replace(pool, prompts=with_system_prompt(pool.prompts, turn), held_out=held_out)
