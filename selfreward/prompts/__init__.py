"""Sources of prompts (built-in, file, dataset, generator), split into disjoint sets and checked for overlap."""

from collections.abc import Sequence
from dataclasses import replace
from typing import assert_never

from selfreward.parts import PromptSource
from selfreward.prompts import facts
from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.dataset import read_dataset
from selfreward.prompts.facts import PARTS, read_facts
from selfreward.prompts.file import read_file
from selfreward.prompts.gold import read_gold
from selfreward.prompts.held_out import Fit, always_fits, gaps
from selfreward.prompts.source import Pool, SplitSource, in_seeded_order, with_system_prompt
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
    VerifiablePrompts,
)
from selfreward.records import Prompt


def build(
    section: PromptsSection,
    *,
    evaluation: EvaluationSection,
    iterations: IterationsSection,
    seed: int,
    fit_training: Fit = always_fits,
    fit_held_out: Fit = always_fits,
) -> PromptSource:
    """Read and split the prompts of a run. Raises RecipeError for input that cannot be used.

    The verifiable prompts get the system prompt of `section`, with which the policy is trained. `fit_training` and
    `fit_held_out` return why a prompt is left out.
    """
    num_training = iterations.max * iterations.num_prompts_per_iteration
    num_held_out = evaluation.num_prompts + evaluation.second_validation_size + evaluation.test_size
    other = evaluation.prompts
    verifiable: Sequence[Prompt] = ()
    if (generated := evaluation.verifiable) is not None:
        generator = VerifiableGenerator(seed, num_checks=generated.num_checks, check_kinds=generated.check_kinds)
        verifiable = with_system_prompt(
            _generated(generator, "verifiable", generated.num_prompts), section.system_prompt
        )
    return SplitSource(
        _pool(section, seed=seed, num_training=num_training, num_held_out=num_held_out),
        other=None if other is None else _pool(other, seed=seed, num_training=0, num_held_out=num_held_out),
        verifiable=verifiable,
        num_validation=evaluation.num_prompts,
        num_second_validation=evaluation.second_validation_size,
        num_test=evaluation.test_size,
        gold=read_gold(evaluation.gold.path) if evaluation.gold is not None else (),
        iterations=iterations,
        boilerplate=[*boilerplate(), *facts.boilerplate()],
        gaps=gaps(evaluation),
        fit_training=fit_training,
        fit_held_out=fit_held_out,
    )


def _pool(section: PromptsSection, *, seed: int, num_training: int, num_held_out: int) -> Pool:
    match section:
        case BuiltinPrompts():
            prompts = in_seeded_order(read_builtin(), seed=seed)
            pool = Pool("the built-in set", prompts, how_to_add="use `kind: file` with your own prompts")
        case FilePrompts():
            prompts = in_seeded_order(read_file(section.path, column=section.column), seed=seed)
            pool = Pool(section.path, prompts, is_correctable=True)
        case DatasetPrompts():
            rows, num_skipped = read_dataset(
                section.name,
                config=section.config,
                split=section.split,
                column=section.column,
                revision=section.revision,
            )
            pool = Pool(f"dataset {section.name!r}", in_seeded_order(rows, seed=seed), num_skipped=num_skipped)
        case VerifiablePrompts():
            generator = VerifiableGenerator(seed, num_checks=section.num_checks, check_kinds=section.check_kinds)
            # Twice the number needed, because up to half may overlap with evaluation prompts.
            pool = Pool(
                "the verifiable generator",
                _generated(generator, "train", min(2 * num_training, generator.available("train"))),
                held_out=_generated(generator, "validation", min(2 * num_held_out, generator.available("validation"))),
                how_to_add="allow more check_kinds",
            )
        case FactsPrompts():
            train, held_out = (in_seeded_order(read_facts(part, section.topics), seed=seed) for part in PARTS)
            pool = Pool("the facts", train, held_out=held_out, how_to_add="use `kind: file` with your own questions")
        case _:
            assert_never(section)
    turn = section.system_prompt
    held_out = None if pool.held_out is None else with_system_prompt(pool.held_out, turn)
    return replace(pool, prompts=with_system_prompt(pool.prompts, turn), held_out=held_out)


def _generated(generator: VerifiableGenerator, part: str, count: int) -> tuple[Prompt, ...]:
    # Ids are used in file names and record keys, so they must not contain a slash.
    return tuple(replace(prompt, id=prompt.id.replace("/", "-")) for prompt in generator.prompts(part, 0, count))
