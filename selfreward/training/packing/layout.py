"""Rows of tokens as one sequence in which what rows have in common at their beginning stands once.

The rows are sorted, and each one adds only its tokens after the longest prefix that it shares with the row before:
a walk through their prefix tree. A token sees the tokens before it on its own row, and no others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Run:
    """The tokens [start, end) that one row added, and the indices of the tokens before them on that row."""

    start: int
    end: int
    prefix: Ids


@dataclass(frozen=True)
class Layout:
    """T packed tokens, L distinct labels, B rows of which the longest has R tokens.

    `position_T`: place of a token on its row, from 0. `reach_T`: token k is seen by the tokens q with
    k <= q < reach_T[k] and by no others. `predecessor_L`: the token whose hidden state predicts label l.
    `slot_BR`: for row b and place r, from 0 to R - 2, which label the token at place r + 1 is; L where it is none.
    `kept` holds what is derived from the layout for a device, once for all layers.
    """

    token_T: Ids
    position_T: Ids
    reach_T: Ids
    runs: tuple[Run, ...]
    label_L: Ids
    predecessor_L: Ids
    slot_BR: Ids
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def num_tokens(self) -> int:
        return len(self.token_T)


def lay_out(rows: Sequence[Sequence[int]], *, prompt_lengths: Sequence[int]) -> Layout:
    """`prompt_lengths[b]`, at least 1: how many tokens of row b carry no label."""
    paths: list[Ids] = [np.empty(0, np.int64)] * len(rows)
    pieces: list[Ids] = []
    positions: list[Ids] = []
    runs: list[Run] = []
    num_tokens = sum(map(len, rows))
    reach_T = np.zeros(num_tokens, np.int64)
    path, row, total = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for index in sorted(range(len(rows)), key=lambda b: tuple(rows[b])):
        before, row = row, np.asarray(rows[index], np.int64)
        shared = common_prefix(before, row)
        reach_T[path[shared:]] = total
        own = np.arange(total, total + len(row) - shared)
        if own.size:
            runs.append(Run(total, total + own.size, path[:shared]))
        path = np.concatenate([path[:shared], own])
        paths[index] = path
        pieces.append(row[shared:])
        positions.append(np.arange(shared, len(row)))
        total += own.size
    reach_T[path] = total
    label_L, predecessor_L, slot_BR = _labels(paths, prompt_lengths)
    token_T = np.concatenate(pieces)
    return Layout(
        token_T=token_T,
        position_T=np.concatenate(positions),
        reach_T=reach_T[:total],
        runs=tuple(runs),
        label_L=token_T[label_L],
        predecessor_L=predecessor_L,
        slot_BR=slot_BR,
    )


def _labels(paths: Sequence[Ids], prompt_lengths: Sequence[int]) -> tuple[Ids, Ids, Ids]:
    """Packed indices of the labels, each once however many rows it belongs to; their predecessors; the slots."""
    targets = [path[length:] for path, length in zip(paths, prompt_lengths, strict=True)]
    sources = [path[length - 1 : -1] for path, length in zip(paths, prompt_lengths, strict=True)]
    label_L, first, slots = np.unique(np.concatenate(targets), return_index=True, return_inverse=True)
    slot_BR = np.full((len(paths), max(map(len, paths)) - 1), label_L.size, np.int64)
    done = 0
    for slot_R, target, length in zip(slot_BR, targets, prompt_lengths, strict=True):
        slot_R[length - 1 : length - 1 + target.size] = slots[done : done + target.size]
        done += target.size
    return label_L, np.concatenate(sources)[first], slot_BR


def common_prefix(a: Ids, b: Ids) -> int:
    """How many tokens `a` and `b` have in common at their beginning."""
    size = min(a.size, b.size)
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if different.size else size


def num_packed_tokens(rows: Sequence[Sequence[int]]) -> int:
    """T of the layout of `rows`, without making it."""
    arrays = [np.asarray(row, np.int64) for row in sorted(map(tuple, rows))]
    shared = sum(common_prefix(a, b) for a, b in pairwise(arrays))
    return sum(row.size for row in arrays) - shared
