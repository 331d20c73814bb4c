"""Division of an optimizer step's pairs into micro-batches, under a budget of tokens.

The loss of a step is the mean over its pairs, so any division gives the same gradient. This one keeps pairs that share
a prefix together, and makes the micro-batches about equal in size.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

from selfreward.updates.packing.layout import Ids, PairTokens, common_prefix


@dataclass(frozen=True)
class Budget:
    """Limits of a micro-batch: `max_tokens` computed and `max_pairs`; None is no limit. A pair that exceeds
    `max_tokens` is a micro-batch of its own.

    Of the keys that packed attention copies (`Layout.num_keys`), those beyond one per token count as `key_cost` tokens.
    """

    max_tokens: int | None
    max_pairs: int | None = None
    shared_prefix: bool = True
    key_cost: float = 0.0

    def num_tokens(self, pairs: Sequence[PairTokens]) -> int:
        """Count the tokens computed for a micro-batch of `pairs`: packed, or padded with each prompt twice."""
        load = _Load(self)
        for pair in pairs:
            load.add(pair)
        return load.num_tokens


def divide(pairs: Sequence[PairTokens], budget: Budget, *, multiple_of: int = 1) -> list[list[int]]:
    """Return micro-batches as lists of indices into `pairs`; their number is a multiple of `multiple_of`.

    Some micro-batches may be empty. Pairs are ordered by their tokens, or by length when they are padded, and
    neighbours are computed together. The division depends only on the set of pairs.
    """
    order = sorted(range(len(pairs)), key=lambda i: _sort_key(pairs[i], budget))
    filled = _fill(pairs, order, budget)
    num_wanted = -(-len(filled) // multiple_of) * multiple_of
    micro_batches = _balance(pairs, order, budget, filled, num_wanted) if num_wanted > 1 else filled
    return micro_batches + [[] for _ in range(num_wanted - len(micro_batches))]


def _sort_key(pair: PairTokens, budget: Budget) -> tuple[Any, ...]:
    """Return the sort key of a pair; only equal pairs have equal keys."""
    return 0 if budget.shared_prefix else -max(map(len, pair.rows)), pair.rows, pair.prompt


def _fill(pairs: Sequence[PairTokens], order: Sequence[int], budget: Budget) -> list[list[int]]:
    """Fill micro-batches greedily, in order, each until the next pair does not fit."""
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
    """Tokens and copied keys of a growing micro-batch, updated per pair: many pairs are divided in linear time."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._num_pairs, self._num_distinct, self._longest, self.num_keys = budget, 0, 0, 0, 0
        self._rows: list[tuple[tuple[int, ...], Ids]] = []  # sorted

    def add(self, pair: PairTokens) -> None:
        self._num_pairs += 1
        self._longest = max(self._longest, *map(len, pair.rows))
        for row, ids in zip(pair.rows, pair.arrays, strict=True) if self._budget.shared_prefix else ():
            index = bisect_left(self._rows, row, key=itemgetter(0))
            # No other row shares a longer prefix with a row than its neighbours in sorted order.
            before = common_prefix(self._rows[index - 1][1], ids) if index else 0
            after, length = 0, 0
            if index < len(self._rows):
                after, length = common_prefix(ids, self._rows[index][1]), len(self._rows[index][0])
            self._num_distinct += len(row) - max(before, after)
            # The next row followed the one before, with which it shares the shorter of the two prefixes.
            self.num_keys += _keys(len(row), before) + _keys(length, after) - _keys(length, min(before, after))
            self._rows.insert(index, (row, ids))

    @property
    def num_tokens(self) -> int:
        return self._num_distinct if self._budget.shared_prefix else 2 * self._num_pairs * self._longest

    def fits(self) -> bool:
        budget = self._budget
        size = self.num_tokens + budget.key_cost * max(0, self.num_keys - self.num_tokens)
        return (budget.max_pairs is None or self._num_pairs <= budget.max_pairs) and (
            budget.max_tokens is None or size <= budget.max_tokens
        )


def _keys(length: int, shared: int) -> int:
    """Return the keys that are copied for a row that shares tokens with the row before: all, unless it adds none."""
    return length if 0 < shared < length else 0


def _balance(
    pairs: Sequence[PairTokens], order: Sequence[int], budget: Budget, filled: list[list[int]], num_wanted: int
) -> list[list[int]]:
    """Return at most `num_wanted` micro-batches, minimising the largest by bisection over the token budget."""
    low, high = 0, budget.max_tokens or budget.num_tokens(pairs)
    best = filled
    while high - low > max(1, high // 64):
        middle = (low + high) // 2
        tried = _fill(pairs, order, replace(budget, max_tokens=middle))
        if len(tried) <= num_wanted:
            best, high = tried, middle
        else:
            low = middle
    return best
