"""A block's pairs in memory, and the order in which they are trained on."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from selfreward.updates.packing.layout import PairTokens

Batch = list[int]
"""The pairs of one optimizer step, as indices into a block."""


@dataclass(frozen=True)
class PairBlock:
    """B pairs. `weight_B` (at least 0) scales each pair's loss; `label_B` in [0, 1] is the probability that the chosen
    response is the better one."""

    ids: tuple[str, ...]
    tokens: tuple[PairTokens, ...]
    weight_B: Tensor
    label_B: Tensor

    @classmethod
    def of(cls, table: pa.Table) -> "PairBlock":
        """Build a block from the columns that `pairs.read_pairs` returns."""
        columns = (table[name].to_pylist() for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        tokens = tuple(PairTokens(*map(tuple, ids)) for ids in zip(*columns, strict=True))
        weight_B, label_B = (torch.tensor(table[name].to_pylist()) for name in ("weight", "label"))
        return cls(tuple(table["id"].to_pylist()), tokens, weight_B, label_B)

    @cached_property
    def is_plain(self) -> bool:
        """Whether every pair has weight 1 and label 1."""
        return bool((self.weight_B == 1).all() and (self.label_B == 1).all())

    @cached_property
    def longest_row_tokens(self) -> int:
        """Number of tokens of the longest row; a row is a prompt with one response."""
        return max(len(row) for pair in self.tokens for row in pair.rows)


def batches(num_pairs: int, *, batch_size: int, num_epochs: int, seed: int) -> Iterator[Batch]:
    """Yield all batches of a training run, in an order that depends only on the seed and the epoch."""
    for epoch in range(num_epochs):
        order: Batch = np.random.default_rng([seed, epoch]).permutation(num_pairs).tolist()
        for start in range(0, num_pairs, batch_size):
            yield order[start : start + batch_size]
