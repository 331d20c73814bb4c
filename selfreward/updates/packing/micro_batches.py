"""Which pairs of an optimizer step are computed together, under a budget of tokens.

The loss of a step is the mean over its pairs, so any division gives the same gradient; this one keeps together what
shares a prefix, and makes the parts about equal.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from selfreward.updates.packing.layout import Ids, PairTokens, common_prefix


@dataclass(frozen=True)
class Budget:
    """`max_tokens` that a micro-batch computes and `max_pairs` in it; null is no limit. A longer pair stands alone."""

    max_tokens: int | None
    max_pairs: int | None = None
    shared_prefix: bool = True

    def larger(self, factor: int) -> "Budget":
        tokens, pairs = (limit and limit * factor for limit in (self.max_tokens, self.max_pairs))
        return Budget(tokens, pairs, self.shared_prefix)

    def num_tokens(self, pairs: Sequence[PairTokens]) -> int:
        """What the micro-batch of `pairs` computes: packed, or with padding and each prompt twice."""
        load = _Load(self)
        for pair in pairs:
            load.add(pair)
        return load.num_tokens


def divide(pairs: Sequence[PairTokens], budget: Budget, *, multiple_of: int = 1) -> list[list[int]]:
    """Micro-batches as lists of indices into `pairs`; their number is a multiple of `multiple_of`, some may be empty.

    Neighbours in the order of their tokens come together, or of their lengths when they are padded. The result depends
    on the set of pairs alone.
    """
    order = sorted(range(len(pairs)), key=lambda i: _place(pairs[i], budget))
    filled = _fill(pairs, order, budget)
    wanted = -(-len(filled) // multiple_of) * multiple_of
    micro_batches = _level(pairs, order, budget, filled, wanted) if wanted > 1 else filled
    return micro_batches + [[] for _ in range(wanted - len(micro_batches))]


def _place(pair: PairTokens, budget: Budget) -> tuple[Any, ...]:
    """What pairs are sorted by; only equal pairs have the same."""
    return 0 if budget.shared_prefix else -max(map(len, pair.rows)), pair.rows, pair.prompt


def _fill(pairs: Sequence[PairTokens], order: Sequence[int], budget: Budget) -> list[list[int]]:
    """Each micro-batch takes pairs in order until the next one does not fit."""
    filled: list[list[int]] = []
    load = _Load(budget)
    for index in order:
        load.add(pairs[index])
        if filled and load.fits():
            filled[-1].append(index)
        else:
            filled.append([index])
            load = _Load(budget)
            load.add(pairs[index])
    return filled


class _Load:
    """`Budget.num_tokens` of a micro-batch that grows, so that a pass over many pairs is divided in linear time."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._num_pairs, self._num_distinct, self._longest = budget, 0, 0, 0
        self._rows: list[tuple[tuple[int, ...], Ids]] = []  # sorted

    def add(self, pair: PairTokens) -> None:
        self._num_pairs += 1
        self._longest = max(self._longest, *map(len, pair.rows))
        for row, ids in zip(pair.rows, pair.arrays, strict=True) if self._budget.shared_prefix else ():
            place = bisect_left(self._rows, row, key=itemgetter(0))
            # No other rows share more with a row than its neighbours.
            shared = (common_prefix(ids, other) for _, other in self._rows[max(place - 1, 0) : place + 1])
            self._num_distinct += len(row) - max(shared, default=0)
            self._rows.insert(place, (row, ids))

    @property
    def num_tokens(self) -> int:
        return self._num_distinct if self._budget.shared_prefix else 2 * self._num_pairs * self._longest

    def fits(self) -> bool:
        budget = self._budget
        return (budget.max_pairs is None or self._num_pairs <= budget.max_pairs) and (
            budget.max_tokens is None or self.num_tokens <= budget.max_tokens
        )


def _level(
    pairs: Sequence[PairTokens], order: Sequence[int], budget: Budget, filled: list[list[int]], wanted: int
) -> list[list[int]]:
    """At most `wanted` micro-batches with the largest of them as small as it can be: bisection over the budget."""
    low, high = 0, budget.max_tokens or budget.num_tokens(pairs)
    best = filled
    while high - low > max(1, high // 64):
        middle = (low + high) // 2
        tried = _fill(pairs, order, Budget(middle, budget.max_pairs, budget.shared_prefix))
        if len(tried) <= wanted:
            best, high = tried, middle
        else:
            low = middle
    return best
