"""What a person should know of `pairing` before a run."""

from collections.abc import Iterator

from selfreward import recipe
from selfreward.pairing import build
from selfreward.problems import Facts, Problem, warning


def problems(section: recipe.PairingSection, facts: Facts) -> Iterator[Problem]:
    iterations, least = facts.recipe.iterations, facts.recipe.monitor.min_pairs
    if least > build(section).most(facts.recipe.sampling.num_responses) * iterations.num_prompts_per_iteration:
        yield warning(
            f"monitor.min_pairs is {least}, but an iteration has only {iterations.num_prompts_per_iteration} prompts: "
            "the run will stop after the first"
        )
