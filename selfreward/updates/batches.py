"""The pairs of a block in memory, and the order in which they are trained on."""

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
    """B pairs. `weight_B` (at least 0): what a pair counts; `label_B` in [0, 1]: how probably chosen is the better."""

    ids: tuple[str, ...]
    tokens: tuple[PairTokens, ...]
    weight_B: Tensor
    label_B: Tensor

    @classmethod
    def of(cls, table: pa.Table) -> "PairBlock":
        """From the columns of `pairs.read_pairs`."""
        columns = (table[name].to_pylist() for name in ("prompt_ids", "chosen_ids", "rejected_ids"))
        tokens = tuple(PairTokens(*map(tuple, ids)) for ids in zip(*columns, strict=True))
        weight_B, label_B = (torch.tensor(table[name].to_pylist()) for name in ("weight", "label"))
        return cls(tuple(table["id"].to_pylist()), tokens, weight_B, label_B)

    @cached_property
    def is_plain(self) -> bool:
        """Whether all pairs count alike and have hard labels."""
        return bool((self.weight_B == 1).all() and (self.label_B == 1).all())

    @cached_property
    def num_longest_tokens(self) -> int:
        """Of the longest row, a prompt with one response."""
        return max(len(row) for pair in self.tokens for row in pair.rows)


def batches(num_pairs: int, *, batch_size: int, num_epochs: int, seed: int) -> Iterator[Batch]:
    """All batches of a training, in an order that depends on the seed and the epoch alone."""
    for epoch in range(num_epochs):
        order: Batch = np.random.default_rng([seed, epoch]).permutation(num_pairs).tolist()
        for start in range(0, num_pairs, batch_size):
            yield order[start : start + batch_size]
