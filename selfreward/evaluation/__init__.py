"""Evaluation of checkpoints on held-out prompts and of the judge that labels; it writes the monitor's outcomes."""

from collections.abc import Iterator

from selfreward.evaluation.evaluator import Evaluator
from selfreward.evaluation.held_out import held_out
from selfreward.evaluation.judge_agreement import judge_probe
from selfreward.evaluation.responding import Decoding
from selfreward.evaluation.second_validation import second_validation
from selfreward.evaluation.test_set import test_set
from selfreward.parts import Anchor, Engine, PromptSource
from selfreward.problems import Facts, Problem, too_long
from selfreward.recipe import EvaluationSection, Recipe


def evaluator(recipe: Recipe, *, source: PromptSource, engine: Engine, anchor: Anchor) -> Evaluator:
    """Return the setup shared by all measurements on held-out prompts, with the recipe's decoding parameters."""
    section, sampling = recipe.evaluation, recipe.sampling
    decoding = Decoding(section.temperature, sampling.top_p, section.max_tokens or sampling.max_tokens)
    return Evaluator(source, engine, anchor, decoding, recipe.seed, recipe.iterations.shard_prompts)


def problems(section: EvaluationSection, facts: Facts) -> Iterator[Problem]:
    """Yield held-out prompts that are too long for a response of `max_tokens` in the context."""
    source, max_tokens = facts.source, section.max_tokens or facts.recipe.sampling.max_tokens
    for prompts_of in (
        source.validation_prompts,
        source.second_validation_prompts,
        source.test_prompts,
        source.verifiable_prompts,
    ):
        yield from too_long(prompts_of(), max_tokens, facts)
