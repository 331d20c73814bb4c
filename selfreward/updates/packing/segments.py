"""Packed attention segment by segment: each segment attends to its own row by SDPA, on any device.

No scores of other rows are computed. The only masked scores that are computed are the upper triangle of a segment and,
with a sliding window, the scores outside it.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from selfreward.updates.packing.layout import Layout

View = tuple[torch.Tensor | None, torch.Tensor | None]
"""The packed indices of the tokens before a segment on its row (None if there are none), and the mask of the segment's
scores (None if it is causal)."""


def attend(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    layout: Layout,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Return the attention output, (B, T, H, D)."""
    grouped = query_BHTD.shape[1] != key_BGTD.shape[1]
    pieces = []
    views = _views(layout, window, query_BHTD.dtype, query_BHTD.device)
    for segment, (prefix, mask) in zip(layout.segments, views, strict=True):
        own = slice(segment.start, segment.end)
        key, value = key_BGTD[:, :, own], value_BGTD[:, :, own]
        if prefix is not None:
            key, value = (
                torch.cat([x.index_select(2, prefix), y], 2) for x, y in ((key_BGTD, key), (value_BGTD, value))
            )
        pieces.append(
            scaled_dot_product_attention(
                query_BHTD[:, :, own], key, value, attn_mask=mask, is_causal=mask is None, scale=scaling,
                enable_gqa=grouped,
            )
        )  # fmt: skip
    return torch.cat(pieces, 2).transpose(1, 2).contiguous()


def _views(layout: Layout, window: int | None, dtype: torch.dtype, device: torch.device) -> list[View]:
    """Return the view of each segment, made once for all layers with the same window."""
    key = ("views", window, dtype, device)
    if key not in layout.cache:
        layout.cache[key] = [
            _view(segment.start, segment.end, segment.prefix, window, dtype, device) for segment in layout.segments
        ]
    views: list[View] = layout.cache[key]
    return views


def _view(start: int, end: int, prefix: Any, window: int | None, dtype: torch.dtype, device: torch.device) -> View:
    position_Q = torch.arange(prefix.size, prefix.size + end - start)
    first = first_visible(prefix.size, window)
    if first == prefix.size and (window is None or end - start <= window):
        return None, None
    position_K = torch.arange(first, prefix.size + end - start)
    distance_QK = position_Q[:, None] - position_K
    hidden_QK = distance_QK < 0
    if window is not None:
        hidden_QK |= distance_QK >= window
    mask_QK = torch.zeros(hidden_QK.shape, dtype=dtype).masked_fill(hidden_QK, -torch.inf).to(device)
    return torch.from_numpy(prefix[first:]).to(device) if first < prefix.size else None, mask_QK


def first_visible(num_before: int, window: int | None) -> int:
    """Return the first position that any token of a segment attends to, with `num_before` tokens before the segment."""
    return 0 if window is None else max(0, num_before - window + 1)
