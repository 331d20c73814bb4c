"""Pairs as TRL's collator makes them: one row per response, padded to the longest."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from selfreward.updates.packing.layout import PairTokens


def padded_batch(pairs: Sequence[PairTokens]) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask` and `completion_mask` (1 on responses) of B pairs, each (2B, T) and int64.

    All chosen rows, then all rejected rows, padded on the right with id 0; both masks are 0 on padding.
    """
    rows = [(pair.rows[side], len(pair.prompt)) for side in (0, 1) for pair in pairs]
    ids_BT = torch.zeros(len(rows), max(len(row) for row, _ in rows), dtype=torch.int64)
    attention_BT, completion_BT = torch.zeros_like(ids_BT), torch.zeros_like(ids_BT)
    for b, (row, num_prompt) in enumerate(rows):
        ids_BT[b, : len(row)] = torch.tensor(row)
        attention_BT[b, : len(row)] = 1
        completion_BT[b, num_prompt : len(row)] = 1
    return {"input_ids": ids_BT, "attention_mask": attention_BT, "completion_mask": completion_BT}


def labels_of(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the labels, (2B, T): token ids on responses, -100 elsewhere."""
    return inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
