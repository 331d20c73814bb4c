"""Judgments as columns of numbers, so that the texts of an iteration's judgments need not fit into memory.

The order of the rows does not depend on the order of the judgments, so no statistic computed from them does.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfreward.records import Judgment

Array = NDArray[np.float64]
Index = NDArray[np.int64]

ORDERS = 2


@dataclass(frozen=True)
class ScoreTable:
    """One row (`_N`) for each scored judgment: codes into the sorted ids and parts, and the score.

    `other_N` is -1 for a judgment that is not a comparison, `first_N` is 1 where `response_id` was shown first.
    `num_judged_P` and `num_unscored_P` count a prompt's judgments with part "". A score that is not finite counts as
    missing.
    """

    prompt_ids: tuple[str, ...]
    response_ids: tuple[str, ...]
    parts: tuple[str, ...]
    prompt_N: Index
    response_N: Index
    other_N: Index
    first_N: Index
    draw_N: Index
    part_N: Index
    score_N: Array
    num_judged_P: Index
    num_unscored_P: Index


def score_table(judgments: Iterable[Judgment]) -> ScoreTable:
    """Build the table in one pass that stores only numbers and ids."""
    prompts, responses, parts = _Codes(), _Codes(), _Codes()
    codes, scores = array("q"), array("d")
    judged: defaultdict[int, list[int]] = defaultdict(lambda: [0, 0])
    for judgment in judgments:
        prompt = prompts[judgment.prompt_id]
        scored = judgment.score is not None and math.isfinite(judgment.score)
        if judgment.part == "":
            judged[prompt][0] += 1
            judged[prompt][1] += not scored
        if judgment.score is None or not scored:
            continue
        other = responses[judgment.other_id] if judgment.other_id else -1
        first = int(judgment.shown_first == judgment.response_id)
        codes.extend((prompt, responses[judgment.response_id], other, first, judgment.draw, parts[judgment.part]))
        scores.append(judgment.score)
    columns = np.array(codes, dtype=np.int64).reshape(-1, 6)
    score_N = np.array(scores, dtype=np.float64)
    prompt_ids, prompt_rank = prompts.sorted()
    response_ids, response_rank = responses.sorted()
    part_names, part_rank = parts.sorted()
    for column, rank in ((0, prompt_rank), (1, response_rank), (2, response_rank), (5, part_rank)):
        columns[:, column] = rank[columns[:, column]]
    order = np.lexsort((score_N, *columns.T[::-1]))
    counts = np.array([judged[prompts[prompt_id]] for prompt_id in prompt_ids], dtype=np.int64).reshape(-1, 2)
    prompt_N, response_N, other_N, first_N, draw_N, part_N = columns[order].T
    return ScoreTable(
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        parts=part_names,
        prompt_N=prompt_N,
        response_N=response_N,
        other_N=other_N,
        first_N=first_N,
        draw_N=draw_N,
        part_N=part_N,
        score_N=score_N[order],
        num_judged_P=counts[:, 0],
        num_unscored_P=counts[:, 1],
    )


class _Codes(dict[str, int]):
    """A mapping that assigns the next number to each new text."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]

    def sorted(self) -> tuple[tuple[str, ...], Index]:
        """Return the sorted texts, and the rank of each code among them; the last entry, for code -1, is -1."""
        texts = tuple(sorted(self))
        rank = np.full(len(self) + 1, -1, dtype=np.int64)
        for position, text in enumerate(texts):
            rank[self[text]] = position
        return texts, rank


def mean_by_response(table: ScoreTable, part: str = "") -> dict[str, dict[str, float]]:
    """Return `scores.mean_scores` of a table by prompt id and response id, both sorted, with the same exactness."""
    if part not in table.parts:
        return {}
    rows = table.part_N == table.parts.index(part)
    keys = table.prompt_N[rows], table.response_N[rows], table.other_N[rows], table.first_N[rows]
    (prompt_O, response_O, *_), order_mean_O = _cell_means(keys, table.score_N[rows])  # equal weight for each order
    (prompt_M, response_M), mean_M = _cell_means((prompt_O, response_O), order_mean_O)
    means: dict[str, dict[str, float]] = {}
    for prompt, response, mean in zip(prompt_M.tolist(), response_M.tolist(), mean_M.tolist(), strict=True):
        means.setdefault(table.prompt_ids[prompt], {})[table.response_ids[response]] = mean
    return means


def draws_by_response(table: ScoreTable) -> tuple[tuple[str, ...], Array]:
    """Return prompt ids, and scores of shape (prompts, responses, draws), nan where missing."""
    rows = (table.part_N == _own(table)) & (table.other_N < 0)
    return _padded(table, table.prompt_N[rows], table.response_N[rows], table.draw_N[rows], table.score_N[rows])


def orders_by_pair(table: ScoreTable) -> tuple[tuple[str, ...], Array]:
    """Return prompt ids, and preferences for the lower id of two responses, shape (prompts, pairs, 2), nan where
    missing.

    The last axis: the lower id was shown first, shown second. Draws of the same order are averaged.
    """
    rows = (table.part_N == _own(table)) & (table.other_N >= 0)
    response_N, other_N, score_N = table.response_N[rows], table.other_N[rows], table.score_N[rows]
    is_lower_N = response_N < other_N
    pair_N = np.minimum(response_N, other_N) * len(table.response_ids) + np.maximum(response_N, other_N)
    second_N = (is_lower_N != (table.first_N[rows] == 1)).astype(np.int64)
    preference_N = np.where(is_lower_N, score_N, 1.0 - score_N)
    return _padded(table, table.prompt_N[rows], pair_N, second_N, preference_N, num_columns=ORDERS)


def _own(table: ScoreTable) -> int:
    return table.parts.index("") if "" in table.parts else -1


def _cell_means(keys: tuple[Index, ...], value_N: Array) -> tuple[tuple[Index, ...], Array]:
    """Return the distinct keys in order, and the exactly rounded mean of the values of each."""
    order = np.lexsort(keys[::-1])
    stacked = np.stack(keys)[:, order]
    is_new = np.ones(len(order), dtype=bool)
    is_new[1:] = (stacked[:, 1:] != stacked[:, :-1]).any(axis=0)
    starts = np.flatnonzero(is_new)
    ends = np.append(starts, len(order))[1:]
    values = value_N[order].tolist()
    means = [math.fsum(values[a:b]) / (b - a) for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    return tuple(stacked[:, starts]), np.array(means, dtype=np.float64)


def _padded(
    table: ScoreTable, prompt_N: Index, unit_N: Index, column_N: Index, value_N: Array, *, num_columns: int = 0
) -> tuple[tuple[str, ...], Array]:
    """Return cell means in an array of shape (prompts, maximum number of units, columns), padded with nan."""
    if not num_columns:
        columns, column_N = np.unique(column_N, return_inverse=True)
        num_columns = len(columns)
    (prompt_M, unit_M, column_M), mean_M = _cell_means((prompt_N, unit_N, column_N), value_N)
    prompts, row_M = np.unique(prompt_M, return_inverse=True)
    is_new_M = np.ones(len(prompt_M), dtype=bool)
    is_new_M[1:] = (prompt_M[1:] != prompt_M[:-1]) | (unit_M[1:] != unit_M[:-1])
    unit_index_M = np.cumsum(is_new_M) - 1  # over all prompts
    first_index_P = unit_index_M[np.searchsorted(prompt_M, prompts)]
    unit_index_M = unit_index_M - first_index_P[row_M]
    shape = (len(prompts), int(unit_index_M.max(initial=-1)) + 1, num_columns)
    cells = np.full(shape, np.nan)
    cells[row_M, unit_index_M, column_M] = mean_M
    return tuple(table.prompt_ids[prompt] for prompt in prompts.tolist()), cells
