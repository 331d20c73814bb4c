"""Sources of prompts (built-in, files, dataset, generator), split into disjoint sets and checked for overlap."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import assert_never

from selfreward.parts import PromptSource
from selfreward.prompts.builtin import read_builtin
from selfreward.prompts.collecting import collect
from selfreward.prompts.dataset import open_dataset
from selfreward.prompts.files import Row, open_rows
from selfreward.prompts.gold import read_gold
from selfreward.prompts.held_out import Fit, always_fits, gaps
from selfreward.prompts.recipe_problems import problems
from selfreward.prompts.rows import RowReader
from selfreward.prompts.source import Pool, SplitSource, in_seeded_order, with_system_prompt
from selfreward.prompts.stages import fresh
from selfreward.prompts.verifiable import VerifiableGenerator, boilerplate
from selfreward.recipe import (
    BuiltinPrompts,
    DatasetPrompts,
    EvaluationSection,
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
    gold, gold_summary = read_gold(evaluation.gold.path) if evaluation.gold is not None else ((), None)
    return SplitSource(
        _pool(section, seed=seed, num_training=num_training, num_held_out=num_held_out),
        other=None
        if other is None
        else _pool(other, seed=seed, num_training=0, num_held_out=num_held_out, key="evaluation.prompts"),
        verifiable=verifiable,
        num_validation=evaluation.num_prompts,
        num_second_validation=evaluation.second_validation_size,
        num_test=evaluation.test_size,
        gold=gold,
        gold_summary=gold_summary,
        iterations=iterations,
        boilerplate=boilerplate(),
        gaps=gaps(evaluation),
        fit_training=fit_training,
        fit_held_out=fit_held_out,
    )


def _pool(section: PromptsSection, *, seed: int, num_training: int, num_held_out: int, key: str = "prompts") -> Pool:
    match section:
        case BuiltinPrompts():
            prompts = in_seeded_order(read_builtin(), seed=seed)
            pool = Pool("the built-in set", prompts, how_to_add="use your own file: `prompts: FILE.jsonl`")
        case FilePrompts():
            rows = open_rows(section.path)
            pool = _pool_of_rows(rows, section, section.path, f"file:{section.path}", seed=seed, key=key)
        case DatasetPrompts():
            rows = open_dataset(section.name, config=section.config, split=section.split, revision=section.revision)
            source = f"dataset:{section.name}"
            pool = _pool_of_rows(rows, section, f"dataset {section.name!r}", source, seed=seed, key=key)
        case VerifiablePrompts():
            generator = VerifiableGenerator(seed, num_checks=section.num_checks, check_kinds=section.check_kinds)
            # Twice the number needed, because up to half may overlap with evaluation prompts.
            pool = Pool(
                "the verifiable generator",
                _generated(generator, "train", min(2 * num_training, generator.available("train"))),
                held_out=_generated(generator, "validation", min(2 * num_held_out, generator.available("validation"))),
                how_to_add="allow more check_kinds",
            )
        case _:
            assert_never(section)
    turn = section.system_prompt
    held_out = None if pool.held_out is None else with_system_prompt(pool.held_out, turn)
    return replace(pool, prompts=with_system_prompt(pool.prompts, turn), held_out=held_out)


def _pool_of_rows(
    rows: Iterable[Row], section: FilePrompts | DatasetPrompts, name: str, source: str, *, seed: int, key: str
) -> Pool:
    columns = section.named_columns
    found, summary = collect(
        rows,
        RowReader(source, columns, section.answer_check).read,
        name=f"{key}: {name}",
        max_dropped_rate=section.max_dropped_rate,
        rate_key=f"{key}.max_dropped_rate",
        columns=columns,
    )
    return Pool(name, in_seeded_order((each.prompt for each in found), seed=seed), summary=summary)


def _generated(generator: VerifiableGenerator, part: str, count: int) -> tuple[Prompt, ...]:
    # Ids are used in file names and record keys, so they must not contain a slash.
    return tuple(replace(prompt, id=prompt.id.replace("/", "-")) for prompt in generator.prompts(part, 0, count))
