"""Held-out prompts that leave no room for their response in the context."""

from collections.abc import Iterator

from selfreward.problems import Facts, Problem, too_long
from selfreward.recipe import EvaluationSection


def problems(section: EvaluationSection, facts: Facts) -> Iterator[Problem]:
    source, max_tokens = facts.source, section.max_tokens or facts.recipe.sampling.max_tokens
    for ask in (source.monitor_prompts, source.reserve_prompts, source.seal_prompts, source.verifiable_prompts):
        yield from too_long(ask(), max_tokens, facts)
