"""Rows of tokens as one sequence that contains each shared prefix once.

The rows are sorted, and each row adds only its tokens after the longest prefix that it shares with the row before: a
depth-first walk through their prefix tree. A token attends to itself and to the tokens before it on its own row only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class PairTokens:
    """Token ids of a preference pair."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @cached_property
    def rows(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.prompt + self.chosen, self.prompt + self.rejected

    @cached_property
    def arrays(self) -> tuple[Ids, Ids]:
        return np.asarray(self.rows[0], np.int64), np.asarray(self.rows[1], np.int64)


@dataclass(frozen=True)
class Segment:
    """The packed tokens [start, end) that one row adds; `prefix` has the packed indices of the row's earlier tokens."""

    start: int
    end: int
    prefix: Ids


class Layout:
    """A packed sequence: T tokens, L distinct labels, B rows, of which the longest has R tokens.

    `position_T`: position of a token on its row, from 0. `reach_T`: only the tokens q with k <= q < reach_T[k] attend
    to token k. `target_L`: token ids of the labels; `predecessor_L`: index of the token whose hidden state predicts
    each label. `slot_BR`: for row b and position r, from 0 to R - 2, the index of the label at position r + 1, or L if
    that token has no label. `cache` stores what `attention` derives from the layout once for all layers, and what it
    records about its calls. This is not a dataclass, because FSDP recreates dataclasses that it passes to a layer, and
    `cache` would be lost.
    """

    def __init__(
        self, *, token_T: Ids, position_T: Ids, reach_T: Ids, segments: tuple[Segment, ...], target_L: Ids,
        predecessor_L: Ids, slot_BR: Ids,
    ) -> None:  # fmt: skip
        self.token_T, self.position_T, self.reach_T, self.segments = token_T, position_T, reach_T, segments
        self.target_L, self.predecessor_L, self.slot_BR = target_L, predecessor_L, slot_BR
        self.cache: dict[Any, Any] = {}

    @property
    def num_tokens(self) -> int:
        return len(self.token_T)

    @property
    def num_keys(self) -> int:
        """The keys that attention copies for segments after a prefix: those of the prefix and of the segment."""
        return sum(one.prefix.size + one.end - one.start for one in self.segments if one.prefix.size)

    def padded(self, multiple: int) -> "Layout":
        """Return the layout with a row of padding at the end, so that T is a multiple of `multiple`.

        It has no labels, and no other token attends to it. Both layouts have the same `cache`.
        """
        size, total = -self.num_tokens % multiple, self.num_tokens
        if not size:
            return self
        own = Segment(total, total + size, np.empty(0, np.int64))
        padded = Layout(
            token_T=np.append(self.token_T, np.zeros(size, np.int64)),
            position_T=np.append(self.position_T, np.arange(size)),
            reach_T=np.append(self.reach_T, np.full(size, total + size)),
            segments=(*self.segments, own),
            target_L=self.target_L,
            predecessor_L=self.predecessor_L,
            slot_BR=self.slot_BR,
        )
        padded.cache = self.cache
        return padded


def lay_out_pairs(pairs: Sequence[PairTokens]) -> Layout:
    """Lay out the rows in TRL's order: all chosen, then all rejected."""
    return lay_out(
        [pair.rows[side] for side in (0, 1) for pair in pairs], prompt_lengths=[len(pair.prompt) for pair in pairs] * 2
    )


def lay_out(rows: Sequence[Sequence[int]], *, prompt_lengths: Sequence[int]) -> Layout:
    """Lay out the rows; the first `prompt_lengths[b]` tokens of row b (at least 1) have no label."""
    paths: list[Ids] = [np.empty(0, np.int64)] * len(rows)
    pieces: list[Ids] = []
    positions: list[Ids] = []
    segments: list[Segment] = []
    num_tokens = sum(map(len, rows))
    reach_T = np.zeros(num_tokens, np.int64)
    path, row, total = np.empty(0, np.int64), np.empty(0, np.int64), 0
    for index in sorted(range(len(rows)), key=lambda b: tuple(rows[b])):
        before, row = row, np.asarray(rows[index], np.int64)
        shared = common_prefix(before, row)
        reach_T[path[shared:]] = total
        own = np.arange(total, total + len(row) - shared)
        if own.size:
            segments.append(Segment(total, total + own.size, path[:shared]))
        path = np.concatenate([path[:shared], own])
        paths[index] = path
        pieces.append(row[shared:])
        positions.append(np.arange(shared, len(row)))
        total += own.size
    reach_T[path] = total
    target_L, predecessor_L, slot_BR = _labels(paths, prompt_lengths)
    token_T = np.concatenate(pieces)
    return Layout(
        token_T=token_T,
        position_T=np.concatenate(positions),
        reach_T=reach_T[:total],
        segments=tuple(segments),
        target_L=token_T[target_L],
        predecessor_L=predecessor_L,
        slot_BR=slot_BR,
    )


def _labels(paths: Sequence[Ids], prompt_lengths: Sequence[int]) -> tuple[Ids, Ids, Ids]:
    """Return packed indices of the distinct labels, indices of the tokens before them, and the slots of all rows."""
    targets = [path[length:] for path, length in zip(paths, prompt_lengths, strict=True)]
    sources = [path[length - 1 : -1] for path, length in zip(paths, prompt_lengths, strict=True)]
    target_L, first, slots = np.unique(np.concatenate(targets), return_index=True, return_inverse=True)
    slot_BR = np.full((len(paths), max(map(len, paths)) - 1), target_L.size, np.int64)
    done = 0
    for slot_R, target, length in zip(slot_BR, targets, prompt_lengths, strict=True):
        slot_R[length - 1 : length - 1 + target.size] = slots[done : done + target.size]
        done += target.size
    return target_L, np.concatenate(sources)[first], slot_BR


def common_prefix(a: Ids, b: Ids) -> int:
    """Return the length of the longest common prefix of `a` and `b`."""
    size = min(a.size, b.size)
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if different.size else size
