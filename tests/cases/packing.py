"""Sizes of the small models for tests of packing, and the kernels for CUDA as a CPU can compute them."""

from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention

from selfreward.updates.packing import flex, varlen

EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_experts": 4}
COMMON = {
    "vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


def kernels_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention uncompiled, which has a forward pass only, and FlashAttention by its definition."""
    monkeypatch.setattr(flex, "_kernel", lambda: flex_attention)
    monkeypatch.setattr(varlen, "varlen_attn", flash_attention)


def flash_attention(
    query_THD: torch.Tensor, key_KGD: torch.Tensor, value_KGD: torch.Tensor, starts_q: torch.Tensor,
    starts_k: torch.Tensor, longest_q: int, longest_k: int, *, scale: float | None, window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:  # fmt: skip
    """`varlen_attn` as it is documented: the last query of a sequence is aligned with its last key."""
    assert starts_q.dtype == starts_k.dtype == torch.int32
    left, right = window_size
    assert right == 0 and int(starts_q[-1]) == len(query_THD) and int(starts_k[-1]) == len(key_KGD)
    assert longest_q == starts_q.diff().max() and longest_k == starts_k.diff().max()
    assert enable_gqa == (query_THD.shape[1] != key_KGD.shape[1])
    heads = query_THD.shape[1] // key_KGD.shape[1]
    pieces: list[Any] = []
    for (q0, q1), (k0, k1) in zip(
        *(torch.stack([x[:-1], x[1:]], 1).tolist() for x in (starts_q, starts_k)), strict=True
    ):
        key, value = (x[k0:k1].repeat_interleave(heads, 1) for x in (key_KGD, value_KGD))
        ahead_QK = torch.arange(k1 - k0)[None] - torch.arange(q1 - q0)[:, None] - (k1 - k0 - (q1 - q0))
        visible_QK = (ahead_QK <= 0) & ((left < 0) | (-ahead_QK <= left))
        factor = query_THD.shape[2] ** -0.5 if scale is None else scale
        score_HQK = torch.einsum("qhd,khd->hqk", query_THD[q0:q1], key) * factor
        score_HQK = score_HQK.masked_fill(~visible_QK, -torch.inf)
        pieces.append(torch.einsum("hqk,khd->qhd", score_HQK.softmax(-1), value))
    return torch.cat(pieces)
