"""Attention on a packed sequence: a token attends to itself and to the tokens before it on its own row.

On the CPU each segment attends to its own row by SDPA, so the only masked scores computed are the upper triangle (and,
with a sliding window, the scores outside it). On CUDA FlexAttention computes the complete sequence under a block mask.
Both support grouped queries and sliding windows in positions on the row. A call without a layout is plain SDPA.
"""

from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from selfreward.errors import RecipeError
from selfreward.updates.packing.layout import Layout

NAME = "shared_prefix"
UNSUPPORTED = ("softcap", "s_aux", "position_bias", "past_key_values")


def attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: Any,
    *,
    layout: Layout | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function that transformers calls in every layer; returns (B, T, H, D), with B = 1 for a layout."""
    if layout is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHTD, key_BGTD, value_BGTD, attention_mask, scaling=scaling, **options
        )
        return plain
    given = [name for name in UNSUPPORTED if options.get(name) is not None]
    if attention_mask is not None and attention_mask.numel() != 1:  # not the placeholder of PackedForward
        given.append("a mask of its own")
    if given:
        raise RecipeError(
            f"training.packing: {type(module).__name__} attends with {given[0]}, which shared_prefix does not "
            "support; use training.packing: padded"
        )
    layout.cache["num_calls"] = layout.cache.get("num_calls", 0) + 1
    layout.cache.setdefault("windows", {})[getattr(module, "layer_idx", None)] = sliding_window
    if query_BHTD.device.type == "cpu":
        out_BTHD = _attend_by_segment(query_BHTD, key_BGTD, value_BGTD, layout, scaling=scaling, window=sliding_window)
    else:
        mask = block_mask(layout, window=sliding_window, device=query_BHTD.device)
        out_BTHD, _ = flex_attention_forward(module, query_BHTD, key_BGTD, value_BGTD, mask, scaling=scaling)
    return out_BTHD, None


def _attend_by_segment(
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    layout: Layout,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    grouped = query_BHTD.shape[1] != key_BGTD.shape[1]
    pieces = []
    for segment, (prefix, mask) in zip(layout.segments, _segment_views(layout, window, query_BHTD.dtype), strict=True):
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


def _segment_views(
    layout: Layout, window: int | None, dtype: torch.dtype
) -> list[tuple[torch.Tensor | None, torch.Tensor | None]]:
    """Return for each segment the indices of the tokens before it on its row (None if there are none), and the mask of
    its scores (None if it is causal)."""
    key = ("views", window, dtype)
    if key not in layout.cache:
        layout.cache[key] = [
            _segment_view(layout, segment.start, segment.end, segment.prefix, window, dtype)
            for segment in layout.segments
        ]
    views: list[tuple[torch.Tensor | None, torch.Tensor | None]] = layout.cache[key]
    return views


def _segment_view(
    layout: Layout, start: int, end: int, prefix: Any, window: int | None, dtype: torch.dtype
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    position_Q = torch.arange(prefix.size, prefix.size + end - start)
    first = 0 if window is None else max(0, prefix.size - window + 1)  # the segment attends to nothing earlier
    if first == prefix.size and (window is None or end - start <= window):
        return None, None
    position_K = torch.arange(first, prefix.size + end - start)
    distance_QK = position_Q[:, None] - position_K
    hidden_QK = distance_QK < 0
    if window is not None:
        hidden_QK |= distance_QK >= window
    mask_QK = torch.zeros(hidden_QK.shape, dtype=dtype).masked_fill(hidden_QK, -torch.inf)
    visible_prefix = torch.from_numpy(prefix[first:]) if first < prefix.size else None
    return visible_prefix, mask_QK


def block_mask(layout: Layout, *, window: int | None, device: torch.device) -> BlockMask:
    """Return FlexAttention's mask of the layout, made once for all layers with the same window."""
    key = ("block_mask", window, device)
    if key not in layout.cache:
        reach_T, position_T = (torch.from_numpy(x).to(device) for x in (layout.reach_T, layout.position_T))

        def mask_mod(_batch: Any, _head: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            visible = (k <= q) & (q < reach_T[k])
            return visible if window is None else visible & (position_T[q] - position_T[k] < window)

        size = layout.num_tokens
        layout.cache[key] = create_block_mask(
            mask_mod, None, None, size, size, device=device,
            _compile=device.type == "cuda",  # otherwise a dense T x T mask is built first
        )  # fmt: skip
    mask: BlockMask = layout.cache[key]
    return mask


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for calls without a layout
