"""Packed attention run by run: one call of FlashAttention for sequences of different lengths, on CUDA in 16 bits.

Each segment is a sequence of queries; its keys are those of its row up to its end, which are gathered. No mask is made
and nothing is compiled. Keys are read through an index, so a prefix that S segments share is copied S times in each
layer: in keys and values only, which grouped queries keep small.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.attention.varlen import varlen_attn

from selfreward.updates.packing.layout import Layout
from selfreward.updates.packing.segments import first_visible


@dataclass(frozen=True)
class Sequences:
    """S segments as sequences. `index_K`: packed indices of all keys; None when these are all tokens in order.

    `starts_q` and `starts_k`, (S + 1,): where the queries and keys of each sequence start.
    """

    index_K: torch.Tensor | None
    starts_q: torch.Tensor
    starts_k: torch.Tensor
    longest_q: int
    longest_k: int


def attend(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    layout: Layout,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Return the attention output, (B, T, H, D) with B = 1."""
    sequences = _sequences(layout, window, query_BHTD.device)
    query_THD, key_KGD, value_KGD = (x[0].transpose(0, 1) for x in (query_BHTD, key_BGTD, value_BGTD))
    if sequences.index_K is not None:
        # In float32, so that the gradients of a shared prefix are summed in float32.
        key_KGD, value_KGD = (x.float().index_select(0, sequences.index_K).to(x.dtype) for x in (key_KGD, value_KGD))
    out_THD = varlen_attn(
        query_THD.contiguous(), key_KGD.contiguous(), value_KGD.contiguous(),
        sequences.starts_q, sequences.starts_k, sequences.longest_q, sequences.longest_k,
        scale=scaling,
        # Tokens to the left of the own one, which a window counts too; -1 is no limit. The last query is aligned with
        # the last key.
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query_BHTD.shape[1] != key_BGTD.shape[1],
    )  # fmt: skip
    assert isinstance(out_THD, torch.Tensor)
    return out_THD[None]


def _sequences(layout: Layout, window: int | None, device: torch.device) -> Sequences:
    """Return the sequences of the layout, made once for all layers with the same window."""
    key = ("sequences", window, device)
    if key not in layout.cache:
        keys = [
            np.concatenate([s.prefix[first_visible(s.prefix.size, window) :], np.arange(s.start, s.end)])
            for s in layout.segments
        ]
        lengths_q, lengths_k = [s.end - s.start for s in layout.segments], [*map(len, keys)]
        starts_q, starts_k = (
            torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32, device=device)
            for lengths in (lengths_q, lengths_k)
        )
        has_prefix = lengths_q != lengths_k
        index_K = torch.from_numpy(np.concatenate(keys)).to(device) if has_prefix else None
        layout.cache[key] = Sequences(index_K, starts_q, starts_k, max(lengths_q), max(lengths_k))
    sequences: Sequences = layout.cache[key]
    return sequences
