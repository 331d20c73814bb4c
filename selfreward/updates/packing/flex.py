"""Packed attention in one kernel: FlexAttention under a block mask, compiled by Triton, on CUDA.

The mask is made on the host from `reach_T` and `position_T` alone, in O((T / 128)^2). Lengths are multiples of 128
(`Layout.padded`), and the kernel is compiled for any length, so it is compiled about once per window and precision.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from selfreward.updates.packing.layout import Layout

BLOCK = 128
MAX_COMPILATIONS = 64  # beyond its own limit of 8, torch would compute all T x T scores, with one warning

Bools = NDArray[np.bool_]


def attend(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    layout: Layout,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Return the attention output, (B, T, H, D); T is a multiple of 128."""
    grouped = query_BHTD.shape[1] != key_BGTD.shape[1]
    mask = block_mask(layout, window=window, device=query_BHTD.device)
    kernel = _kernel()
    with torch._dynamo.config.patch(recompile_limit=MAX_COMPILATIONS):
        out_BHTD: torch.Tensor = kernel(
            query_BHTD, key_BGTD, value_BGTD, block_mask=mask, scale=scaling, enable_gqa=grouped
        )
    return out_BHTD.transpose(1, 2).contiguous()


@functools.cache
def _kernel(backend: str = "inductor") -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=True, fullgraph=True, backend=backend)
    return compiled


def block_mask(layout: Layout, *, window: int | None, device: torch.device) -> BlockMask:
    """Return the mask of a layout whose length is a multiple of 128, made once for all layers with the same window."""
    key = ("block_mask", window, device)
    if key not in layout.cache:
        partial_QK, full_QK = _blocks(layout, window)
        layout.cache[key] = BlockMask.from_kv_blocks(
            *_listed(partial_QK, device),
            *_listed(full_QK, device),
            BLOCK_SIZE=BLOCK,
            mask_mod=_visibility(layout, window, device),
            seq_lengths=(layout.num_tokens, layout.num_tokens),
        )
    mask: BlockMask = layout.cache[key]
    return mask


def _visibility(layout: Layout, window: int | None, device: torch.device) -> Callable[..., torch.Tensor]:
    """Return the function that FlexAttention evaluates within partial blocks."""
    reach_T, position_T = (torch.from_numpy(x).to(device) for x in (layout.reach_T, layout.position_T))
    if window is None:
        return lambda _batch, _head, q, k: (k <= q) & (q < reach_T[k])
    return lambda _batch, _head, q, k: (k <= q) & (q < reach_T[k]) & (position_T[q] - position_T[k] < window)


def _blocks(layout: Layout, window: int | None) -> tuple[Bools, Bools]:
    """Return which blocks of queries and keys, (T / 128, T / 128), are computed under the mask, and which without it.

    All others have no visible score. With a window, a block under the mask may have none either: positions within a
    block are known by their smallest and largest only.
    """
    reach_KB, position_KB = (x.reshape(-1, BLOCK) for x in (layout.reach_T, layout.position_T))
    number_K = np.arange(len(reach_KB))
    is_before_QK = number_K < number_K[:, None]
    first_Q1 = number_K[:, None] * BLOCK
    some_QK = is_before_QK & (reach_KB.max(1) > first_Q1) | np.eye(len(number_K), dtype=np.bool_)
    full_QK = is_before_QK & (reach_KB.min(1) >= first_Q1 + BLOCK)
    if window is not None:
        lowest, highest = position_KB.min(1), position_KB.max(1)
        some_QK &= lowest[:, None] - highest < window
        full_QK &= highest[:, None] - lowest < window
    return some_QK & ~full_QK, full_QK


def _listed(blocks_QK: Bools, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return for each row the number of its true entries, and their indices before those of the others: (1, 1, ...)."""
    order_QK = np.argsort(~blocks_QK, axis=1, kind="stable").astype(np.int32)
    count_Q = blocks_QK.sum(1, dtype=np.int32)
    return torch.from_numpy(count_Q).to(device)[None, None], torch.from_numpy(order_QK).to(device)[None, None]
