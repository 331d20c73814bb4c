"""Diversity of texts at a fixed number of tokens."""

from collections.abc import Hashable, Sequence

import numpy as np

from selfreward.statistics import NotEnoughDataError


def distinct_n(sequences: Sequence[Sequence[Hashable]], n: int, *, budget_tokens: int, seed: int = 0) -> float:
    """Return the number of distinct n-grams over all n-grams, in (0, 1], within the first `budget_tokens` tokens.

    The sequences (one per prompt, in the order of the prompts) are read in a shuffled order that depends only on `seed`
    and their number, the last one is truncated, and no n-gram spans two sequences. The ratio falls as more text is
    counted, so only values with the same budget can be compared (Li et al. 1510.03055, section 5, counts all tokens
    instead). Raises NotEnoughDataError when the texts are shorter than the budget or contain no n-gram.
    """
    left = budget_tokens
    grams: set[tuple[Hashable, ...]] = set()
    num_grams = 0
    for index in np.random.default_rng(seed).permutation(len(sequences)):
        kept = tuple(sequences[index][:left])
        left -= len(kept)
        found = [kept[i : i + n] for i in range(len(kept) - n + 1)]
        grams.update(found)
        num_grams += len(found)
        if left <= 0:
            break
    if left > 0:
        raise NotEnoughDataError(f"distinct_{n}: {budget_tokens - left} tokens; the budget is {budget_tokens}")
    if num_grams == 0:
        raise NotEnoughDataError(f"distinct_{n}: no text of {n} tokens within the budget of {budget_tokens}")
    return len(grams) / num_grams
