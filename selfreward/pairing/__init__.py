"""Selection of preference pairs from scored responses.

`strategy.py` defines the input and output of a strategy; `best_vs_worst.py`, `length_controlled.py`, `top_k.py` and
`initial_rejected.py` contain one strategy each. `rules.py` applies to all strategies, with `labels.py` for the
probability that chosen is better, `reliability.py` for the judge's reliability, and `reasons.py` for dropped prompts.
"""

from collections.abc import Iterator
from functools import partial
from typing import assert_never

from selfreward import recipe
from selfreward.pairing.best_vs_worst import best_and_worst
from selfreward.pairing.initial_rejected import best_and_initial_worst
from selfreward.pairing.length_controlled import shortest_and_longest
from selfreward.pairing.reasons import DropReason
from selfreward.pairing.rules import Selector
from selfreward.pairing.stages import bounds, dropped_prompts, pairs
from selfreward.pairing.strategy import Candidate, CandidatePair, PromptCandidates
from selfreward.pairing.top_k import best_and_worst_k
from selfreward.problems import Facts, Problem, warning
from selfreward.tables import INITIAL_RESPONSES


def build(section: recipe.PairingSection) -> Selector:
    match section:
        case recipe.BestVsWorst():
            return Selector(section, best_and_worst)
        case recipe.LengthControlled():
            return Selector(section, partial(shortest_and_longest, rho=section.rho))
        case recipe.TopK():
            return Selector(section, partial(best_and_worst_k, k=section.k), max_pairs=section.k)
        case recipe.InitialRejected():
            return Selector(section, best_and_initial_worst, reads=(INITIAL_RESPONSES,))
        case _:
            assert_never(section)


def problems(section: recipe.PairingSection, facts: Facts) -> Iterator[Problem]:
    """Yield a warning when an iteration cannot give the `monitor.min_pairs` pairs."""
    num_prompts, least = facts.recipe.iterations.num_prompts_per_iteration, facts.recipe.monitor.min_pairs
    if least > build(section).max_pairs(facts.recipe.sampling.num_responses) * num_prompts:
        yield warning(
            f"monitor.min_pairs is {least}, but an iteration has only {num_prompts} prompts: the run will stop after "
            "the first"
        )
