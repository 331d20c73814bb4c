"""Attention on a packed sequence: a token sees the tokens before it on its own row.

On the CPU each run of tokens attends to its row by SDPA, so that no masked score is computed but a triangle. On CUDA
FlexAttention does the whole sequence under a block mask. Grouped queries, and sliding windows counted in places on
the row, are right in both; a call without a layout is plain SDPA.
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
    """What transformers calls in every layer; the result is (B, T, H, D), with B = 1 for a layout."""
    if layout is None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHTD, key_BGTD, value_BGTD, attention_mask, scaling=scaling, **options
        )
        return plain
    given = [name for name in UNSUPPORTED if options.get(name) is not None]
    if attention_mask is not None and attention_mask.numel() != 1:  # not the empty one of PackedForward
        given.append("a mask of its own")
    if given:
        raise RecipeError(
            f"training.packing: {type(module).__name__} attends with {given[0]}, which shared_prefix does not know; "
            "use training.packing: padded"
        )
    layout.kept["num_calls"] = layout.kept.get("num_calls", 0) + 1
    layout.kept.setdefault("windows", {})[getattr(module, "layer_idx", None)] = sliding_window
    if query_BHTD.device.type == "cpu":
        out_BTHD = _by_runs(query_BHTD, key_BGTD, value_BGTD, layout, scaling=scaling, window=sliding_window)
    else:
        mask = block_mask(layout, window=sliding_window, device=query_BHTD.device)
        out_BTHD, _ = flex_attention_forward(module, query_BHTD, key_BGTD, value_BGTD, mask, scaling=scaling)
    return out_BTHD, None


def _by_runs(
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
    for run, (seen, mask) in zip(layout.runs, _views(layout, window, query_BHTD.dtype), strict=True):
        own = slice(run.start, run.end)
        key, value = key_BGTD[:, :, own], value_BGTD[:, :, own]
        if seen is not None:
            key, value = (torch.cat([x.index_select(2, seen), y], 2) for x, y in ((key_BGTD, key), (value_BGTD, value)))
        pieces.append(
            scaled_dot_product_attention(
                query_BHTD[:, :, own], key, value, attn_mask=mask, is_causal=mask is None, scale=scaling,
                enable_gqa=grouped,
            )
        )  # fmt: skip
    return torch.cat(pieces, 2).transpose(1, 2).contiguous()


def _views(
    layout: Layout, window: int | None, dtype: torch.dtype
) -> list[tuple[torch.Tensor | None, torch.Tensor | None]]:
    """For each run: the indices before it on its row, and the mask of its scores; no mask where it is a triangle."""
    key = ("views", window, dtype)
    if key not in layout.kept:
        layout.kept[key] = [_view(layout, run.start, run.end, run.prefix, window, dtype) for run in layout.runs]
    views: list[tuple[torch.Tensor | None, torch.Tensor | None]] = layout.kept[key]
    return views


def _view(
    layout: Layout, start: int, end: int, prefix: Any, window: int | None, dtype: torch.dtype
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    place_Q = torch.arange(prefix.size, prefix.size + end - start)
    first = 0 if window is None else max(0, prefix.size - window + 1)  # no token of the run sees what is before
    if first == prefix.size and (window is None or end - start <= window):
        return None, None
    place_K = torch.arange(first, prefix.size + end - start)
    distance_QK = place_Q[:, None] - place_K
    hidden_QK = distance_QK < 0
    if window is not None:
        hidden_QK |= distance_QK >= window
    mask_QK = torch.zeros(hidden_QK.shape, dtype=dtype).masked_fill(hidden_QK, -torch.inf)
    seen = torch.from_numpy(prefix[first:]) if first < prefix.size else None
    return seen, mask_QK


def block_mask(layout: Layout, *, window: int | None, device: torch.device) -> BlockMask:
    """FlexAttention's mask of the layout; made once for all layers with the same window."""
    key = ("block_mask", window, device)
    if key not in layout.kept:
        reach_T, place_T = (torch.from_numpy(x).to(device) for x in (layout.reach_T, layout.position_T))

        def sees(_batch: Any, _head: Any, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
            visible = (k <= q) & (q < reach_T[k])
            return visible if window is None else visible & (place_T[q] - place_T[k] < window)

        size = layout.num_tokens
        layout.kept[key] = create_block_mask(
            sees, None, None, size, size, device=device,
            _compile=device.type == "cuda",  # else a dense mask of T x T is made on the way
        )  # fmt: skip
    mask: BlockMask = layout.kept[key]
    return mask


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)  # for calls without a layout
