"""Evaluation of checkpoints on held-out prompts and of the judge that labels; it writes the monitor's outcomes."""

from collections.abc import Iterator
from itertools import islice

from selfreward.evaluation.evaluator import Evaluator
from selfreward.evaluation.held_out import held_out
from selfreward.evaluation.judge_agreement import judge_probe
from selfreward.evaluation.responding import Decoding
from selfreward.evaluation.second_validation import second_validation
from selfreward.evaluation.test_set import test_set
from selfreward.parts import Anchor, Engine, PromptSource
from selfreward.problems import Facts, Problem, left_out, of_left_out
from selfreward.recipe import EvaluationSection, Recipe


def evaluator(recipe: Recipe, *, source: PromptSource, engine: Engine, anchor: Anchor) -> Evaluator:
    """Return the setup shared by all measurements on held-out prompts, with the recipe's decoding parameters."""
    section, sampling = recipe.evaluation, recipe.sampling
    decoding = Decoding(section.temperature, sampling.top_p, section.max_tokens or sampling.max_tokens)
    return Evaluator(source, engine, anchor, decoding, recipe.seed, recipe.iterations.shard_prompts)


def problems(section: EvaluationSection, facts: Facts, *, begun: bool) -> Iterator[Problem]:
    """Yield held-out prompts to which no response of `max_tokens` can be given."""
    yield from of_left_out(facts.source.left_out(None), "held-out prompts", begun=begun)
    max_tokens = section.max_tokens or facts.recipe.sampling.max_tokens
    if not begun:  # the generated ones are not taken from a pool, so none is left out
        found = (left_out(prompt, max_tokens, facts.lengths) for prompt in facts.source.verifiable_prompts())
        yield from (Problem(f"{each.found}; {each.advice}") for each in islice(filter(None, found), 1))
