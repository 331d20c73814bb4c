"""Attention on a packed sequence: a token attends to itself and to the tokens before it on its own row.

Three kernels compute the same numbers, up to rounding: `segments` (SDPA for each segment, any device), `varlen`
(FlashAttention, run by run in one call; CUDA, 16 bits) and `flex` (FlexAttention under a block mask; CUDA with Triton).
All support grouped queries and sliding windows in positions on the row. A call without a layout is plain SDPA.
"""

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Any, Final

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from selfreward.errors import RecipeError
from selfreward.nvidia import require_triton
from selfreward.updates.packing import flex, segments, varlen
from selfreward.updates.packing.layout import Layout

KERNELS: Final[dict[str, Callable[..., torch.Tensor]]] = {
    "segments": segments.attend,
    "varlen": varlen.attend,
    "flex": flex.attend,
}
UNSUPPORTED = ("softcap", "s_aux", "position_bias", "past_key_values")
_PREFIX = "shared_prefix_"
VARLEN_CAPABILITY = (8, 0)
"""FlashAttention computes on GPUs of this compute capability (Ampere) or newer."""
VARLEN_HEAD_SIZE = 256


def implementation(kernel: str) -> str:
    """Return the name under which transformers knows the attention with this kernel."""
    return _PREFIX + kernel


def is_packed(name: str) -> bool:
    """Return whether transformers' attention implementation `name` is one of these."""
    return name.removeprefix(_PREFIX) in KERNELS and name.startswith(_PREFIX)


def head_sizes(config: PretrainedConfig) -> set[int]:
    """Return the sizes of the heads of queries, keys and values."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return {size, *(s for name in ("qk_head_dim", "v_head_dim") if (s := getattr(config, name, None)))}


def kernel_for(wanted: str, *, device: torch.device, is_16_bit: bool, head_sizes: Collection[int]) -> str:
    """Return the kernel that computes `training.packed_attention: wanted` on this device; raises RecipeError, and
    InstallationError where Triton is needed and cannot compile.

    `auto` is FlashAttention where it works: it needs no compiler and no mask. Elsewhere it is SDPA.
    """
    missing = _missing_for_varlen(device, is_16_bit=is_16_bit, head_sizes=head_sizes)
    if wanted == "auto":
        return "segments" if missing else "varlen"
    if wanted == "varlen" and missing:
        raise _unavailable(wanted, missing)
    if wanted == "flex" and device.type != "cuda":
        raise _unavailable(wanted, f"FlexAttention trains on CUDA only, and the device is {device.type}")
    if wanted == "flex":
        require_triton()
    return wanted


def _missing_for_varlen(device: torch.device, *, is_16_bit: bool, head_sizes: Collection[int]) -> str | None:
    if device.type != "cuda":
        return f"FlashAttention computes on CUDA only, and the device is {device.type}"
    if not is_16_bit:
        return "FlashAttention computes in 16 bits only, and this GPU trains in float32"
    if (capability := torch.cuda.get_device_capability(device)) < VARLEN_CAPABILITY:
        return f"FlashAttention needs a GPU of compute capability 8.0, and this one has {capability[0]}.{capability[1]}"
    if len(head_sizes) > 1 or any(size > VARLEN_HEAD_SIZE or size % 8 for size in head_sizes):
        sizes = " and ".join(map(str, sorted(head_sizes)))
        return f"FlashAttention needs heads of one size, a multiple of 8 up to 256, and those of this model are {sizes}"
    if {"window_size", "enable_gqa"} - set(inspect.signature(varlen.varlen_attn).parameters):
        return f"torch {torch.__version__} has no FlashAttention with windows and grouped queries for several lengths"
    return None


def _unavailable(wanted: str, why: str) -> RecipeError:
    return RecipeError(
        f"training.packed_attention: {wanted} is not available here: {why}; use training.packed_attention: auto, or "
        "segments, which computes everywhere; a started run may change to it"
    )


def attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BGTD: torch.Tensor,
    value_BGTD: torch.Tensor,
    attention_mask: Any,
    *,
    kernel: str,
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
    if attention_mask is not None and attention_mask.numel() != 1:  # not the placeholder of `label_logps`
        given.append("a mask of its own")
    if given:
        raise RecipeError(
            f"training.packing: {type(module).__name__} attends with {given[0]}, which shared_prefix does not "
            "support; use training.packing: padded"
        )
    layout.cache["num_calls"] = layout.cache.get("num_calls", 0) + 1
    layout.cache.setdefault("windows", {})[getattr(module, "layer_idx", None)] = sliding_window
    tensors = _in_one_dtype(query_BHTD, key_BGTD, value_BGTD)
    return KERNELS[kernel](*tensors, layout, scaling=scaling, window=sliding_window), None


def _in_one_dtype(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Cast as autocast does for SDPA: a model that normalises queries and keys returns them in float32."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(x.to(torch.get_autocast_dtype(device)) for x in tensors)


for _kernel in KERNELS:
    AttentionInterface.register(implementation(_kernel), functools.partial(attention, kernel=_kernel))
    AttentionMaskInterface.register(implementation(_kernel), sdpa_mask)  # for calls without a layout
