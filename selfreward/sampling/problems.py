"""Prompts that leave no room for their response in the context."""

from collections.abc import Iterator

from selfreward.problems import Facts, Problem, too_long
from selfreward.recipe import SamplingSection


def problems(section: SamplingSection, facts: Facts) -> Iterator[Problem]:
    """Of the training prompts. Said before anything is made: afterwards the keys that would help may not change."""
    for iteration in range(facts.recipe.iterations.max):
        yield from too_long(facts.source.training_prompts(iteration + 1), section.max_tokens, facts)
