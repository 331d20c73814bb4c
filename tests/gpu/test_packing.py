"""Packed attention and packed models on a GPU, with every kernel that it has, and FlexAttention's compilations."""

import pytest
import torch

from selfreward.updates.packing import attention

KERNELS = sorted(attention.KERNELS)
DTYPES = (torch.float32, torch.bfloat16)


def require(kernel: str, dtype: torch.dtype) -> None:
    from attention import missing

    if reason := missing(kernel, dtype, "cuda"):
        pytest.skip(reason)


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_output_and_gradients_are_those_under_the_dense_mask(step: object, kernel: str, dtype: torch.dtype) -> None:
    from attention import against_oracle, cases

    require(kernel, dtype)
    for heads, window in cases(kernel, dtype, quick=False):
        against_oracle(step, kernel, dtype, heads, window, (77, 513, 2048))


@pytest.mark.parametrize("name", ["llama", "qwen2 with biases", "qwen2 with windows"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_packed_in_bfloat16_equals_padded(step: object, kernel: str, name: str) -> None:
    from models import random_pairs
    from packing import compare

    require(kernel, torch.bfloat16)
    pairs = random_pairs(3, 100, vocabulary=512) + random_pairs(3, 1500, vocabulary=512, seed=1)
    compare(step, kernel, name, pairs)


def test_thirty_lengths_are_compiled_a_few_times(step: object) -> None:
    from attention import count_compilations

    require("flex", torch.bfloat16)
    assert 1 <= count_compilations("cuda", 30) <= 4


def test_an_update_with_automatic_micro_batches_fits(step: object) -> None:
    from memory import auto
    from models import LLAMA_1B, config_of

    auto(step, config_of("llama", LLAMA_1B))
