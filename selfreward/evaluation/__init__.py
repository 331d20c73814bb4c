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
from selfreward.problems import Facts, Problem, left_out
from selfreward.recipe import EvaluationSection, Recipe


def evaluator(recipe: Recipe, *, source: PromptSource, engine: Engine, anchor: Anchor) -> Evaluator:
    """Return the setup shared by all measurements on held-out prompts, with the recipe's decoding parameters.

    Only temperature and length may differ from those with which training responses are sampled.
    """
    section, sampling = recipe.evaluation, recipe.sampling
    decoding = Decoding(
        section.temperature, sampling.top_p, section.max_tokens or sampling.max_tokens, top_k=sampling.top_k,
        min_p=sampling.min_p, repetition_penalty=sampling.repetition_penalty, stop=tuple(sampling.stop),
    )  # fmt: skip
    return Evaluator(source, engine, anchor, decoding, recipe.seed, recipe.iterations.shard_prompts)


def problems(section: EvaluationSection, facts: Facts, *, begun: bool) -> Iterator[Problem]:
    """Yield the first held-out prompt that is given, not taken from a pool, and to which no response can be given.

    A gold pair that is too long for its judge is unscored.
    """
    if not begun:
        yield from islice(_of_given(section, facts), 1)


def _of_given(section: EvaluationSection, facts: Facts) -> Iterator[Problem]:
    max_tokens = section.max_tokens or facts.recipe.sampling.max_tokens
    for prompt in facts.source.verifiable_prompts():
        if found := left_out(prompt, max_tokens, facts.lengths):
            yield Problem(f"{found.found}; {found.advice}")
    for pair in facts.source.gold_pairs():
        if (found := left_out(pair.prompt, 0, facts.lengths)) and found.kind == "refused_by_template":
            yield Problem(f"evaluation.gold: {found.found}; {found.advice}")
