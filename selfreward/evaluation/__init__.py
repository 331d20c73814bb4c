"""Measures checkpoints on held-out prompts, and the judge that labels; writes the outcomes that the monitor reads."""

from collections.abc import Iterator

from selfreward.evaluation.bench import Bench
from selfreward.evaluation.held_out import held_out
from selfreward.evaluation.judge_agreement import judge_probe
from selfreward.evaluation.responding import Decoding
from selfreward.evaluation.second_validation import second_validation
from selfreward.evaluation.test_set import test_set
from selfreward.parts import Anchor, Engine, PromptSource
from selfreward.problems import Facts, Problem, too_long
from selfreward.recipe import EvaluationSection, Recipe


def bench(recipe: Recipe, *, source: PromptSource, engine: Engine, anchor: Anchor) -> Bench:
    """What all measurements on held-out prompts share. Responses are drawn as `recipe` says, in every iteration."""
    section, sampling = recipe.evaluation, recipe.sampling
    decoding = Decoding(section.temperature, sampling.top_p, section.max_tokens or sampling.max_tokens)
    return Bench(source, engine, anchor, decoding, recipe.seed, recipe.iterations.shard_prompts)


def problems(section: EvaluationSection, facts: Facts) -> Iterator[Problem]:
    """Held-out prompts that leave no room for their response."""
    source, max_tokens = facts.source, section.max_tokens or facts.recipe.sampling.max_tokens
    for ask in (
        source.validation_prompts,
        source.second_validation_prompts,
        source.test_prompts,
        source.verifiable_prompts,
    ):
        yield from too_long(ask(), max_tokens, facts)
