"""The kernels of packed attention against attention under the dense mask, on random trees."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from cases.packing import kernels_on_the_cpu
from torch._dynamo.testing import CompileCounter
from torch.nn.functional import scaled_dot_product_attention

from selfreward.errors import RecipeError
from selfreward.updates.packing import attention, flex
from selfreward.updates.packing.layout import Layout, lay_out

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiling() -> Iterator[None]:
    """An engine that started in this process before may have switched off compilation, which is its own on a CPU."""
    with torch._dynamo.config.patch(disable=False):
        yield


def random_tree(seed: int, *, max_tokens: int = 500) -> Layout:
    """Rows of one to three prompts with common prefixes of random lengths, up to several blocks."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, ...]] = []
    for prompt in range(rng.integers(1, 4)):
        trunk = rng.integers(0, 1000, rng.integers(1, max_tokens))
        for _ in range(rng.integers(1, 5)):
            shared = rng.integers(1, len(trunk) + 1)
            own = rng.integers(0, 1000, rng.integers(0, max_tokens))
            rows.append((prompt, *trunk[:shared].tolist(), *own.tolist()))
    return lay_out(rows, prompt_lengths=[1] * len(rows))


def dense(layout: Layout, window: int | None) -> torch.Tensor:
    """Which token (first dimension) attends to which, from the rows of the segments."""
    visible_QK = torch.zeros(layout.num_tokens, layout.num_tokens, dtype=torch.bool)
    for segment in layout.segments:
        row = np.concatenate([segment.prefix, np.arange(segment.start, segment.end)])
        for position in range(segment.prefix.size, row.size):
            first = 0 if window is None else max(0, position - window + 1)
            visible_QK[row[position], row[first : position + 1]] = True
    return visible_QK


def tensors(layout: Layout, *, heads: tuple[int, int] = (6, 2)) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, h, layout.num_tokens, 8, requires_grad=True) for h in (heads[0], heads[1], heads[1])]


def results(out_BTHD: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The output and the gradients of a weighted sum of it."""
    weights = torch.linspace(-1, 1, out_BTHD.numel()).reshape(out_BTHD.shape)
    return [out_BTHD, *torch.autograd.grad((out_BTHD * weights).sum(), inputs)]


@pytest.mark.parametrize("kernel", ["segments", "varlen"])
@pytest.mark.parametrize("window", [None, 1, 7, 130, 300])
@pytest.mark.parametrize("seed", range(3))
def test_output_and_gradients_are_those_under_the_dense_mask(
    kernel: str, window: int | None, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernels_on_the_cpu(monkeypatch)
    layout = random_tree(seed).padded(64)
    inputs = tensors(layout)
    expected = scaled_dot_product_attention(
        *inputs, attn_mask=dense(layout, window), scale=0.3, enable_gqa=True
    ).transpose(1, 2)  # fmt: skip
    found = attention.KERNELS[kernel](*inputs, layout, scaling=0.3, window=window)
    for one, other in zip(results(found, inputs), results(expected, inputs), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 1, 7, 130, 300])
@pytest.mark.parametrize("seed", range(3))
def test_flex_is_equal_under_the_dense_mask(window: int | None, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompiled FlexAttention reads `mask_mod` alone, and the blocks are tested below."""
    kernels_on_the_cpu(monkeypatch)
    layout = random_tree(seed).padded(flex.BLOCK)
    inputs = [x.detach() for x in tensors(layout)]
    expected = scaled_dot_product_attention(*inputs, attn_mask=dense(layout, window), enable_gqa=True)
    found = flex.attend(*inputs, layout, scaling=None, window=window)
    torch.testing.assert_close(found.transpose(1, 2), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("window", [None, 1, 64, 128, 200, 500])
@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_those_of_the_dense_mask(window: int | None, seed: int) -> None:
    layout = random_tree(seed, max_tokens=400).padded(flex.BLOCK)
    blocks = dense(layout, window).unfold(0, flex.BLOCK, flex.BLOCK).unfold(1, flex.BLOCK, flex.BLOCK)
    some, every = blocks.flatten(2).any(-1), blocks.flatten(2).all(-1)
    mask = flex.block_mask(layout, window=window, device=CPU)
    full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
    partial = listed(mask.kv_num_blocks, mask.kv_indices)
    assert not (full & partial).any()
    assert not (full & ~every).any()  # computed without the mask only where it hides nothing
    assert not (some & ~(full | partial)).any()  # nothing visible is skipped
    if window is None:
        assert torch.equal(full, every) and torch.equal(full | partial, some)  # nothing else is computed
    # For the gradients FlexAttention reads the same blocks by keys.
    assert torch.equal(listed(mask.full_q_num_blocks, mask.full_q_indices), full.T)
    assert torch.equal(listed(mask.q_num_blocks, mask.q_indices), partial.T)
    assert mask is flex.block_mask(layout, window=window, device=CPU)  # made once for all layers


def listed(counts: Any, indices: Any) -> torch.Tensor:
    """Return the blocks as true entries of a matrix."""
    size = counts.shape[-1]
    found = torch.zeros(size, size, dtype=torch.bool)
    for row in range(size):
        found[row, indices[0, 0, row, : counts[0, 0, row]].long()] = True
    return found


def test_a_window_skips_most_blocks_of_a_long_row() -> None:
    layout = lay_out([tuple(range(4096))], prompt_lengths=[1])
    mask = flex.block_mask(layout, window=128, device=CPU)
    assert int(mask.kv_num_blocks.sum() + mask.full_kv_num_blocks.sum()) <= 3 * 32  # of 528 on and below the diagonal


def test_two_hundred_shapes_are_compiled_a_few_times() -> None:
    """Past torch's limit FlexAttention would silently compute all T x T scores."""
    torch._dynamo.reset()
    counter = CompileCounter()
    with torch._dynamo.config.patch(disable=False), torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        kernel = flex._kernel(counter)
        patch.setattr(flex, "_kernel", lambda: kernel)
        for seed in range(200):
            layout = random_tree(seed, max_tokens=120).padded(flex.BLOCK)
            window = (None, 64)[seed % 2]
            inputs = [x.detach() for x in tensors(layout, heads=(3, 1))]  # a backward pass needs CUDA
            flex.attend(*inputs, layout, scaling=None, window=window)
    assert 1 <= counter.frame_count <= 8


def test_padding_is_a_row_of_its_own() -> None:
    layout = random_tree(0)
    padded = layout.padded(256)
    assert padded.num_tokens % 256 == 0 and padded.num_tokens - layout.num_tokens < 256
    size = layout.num_tokens
    assert torch.equal(dense(padded, None)[:size, :size], dense(layout, None))
    assert not dense(padded, None)[:size, size:].any() and not dense(padded, None)[size:, :size].any()
    assert (padded.slot_BR == layout.slot_BR).all() and (padded.predecessor_L == layout.predecessor_L).all()
    assert padded.padded(256) is padded


# --- Which kernel ---

CUDA = torch.device("cuda")


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)


@pytest.mark.parametrize(
    ("capability", "is_16_bit", "expected"),
    [((9, 0), True, "varlen"), ((8, 0), True, "varlen"), ((9, 0), False, "segments"), ((7, 5), True, "segments")],
)
def test_auto_is_flash_attention_where_it_works(
    capability: tuple[int, int], is_16_bit: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, capability)
    assert attention.kernel_for("auto", device=CUDA, is_16_bit=is_16_bit, head_sizes={64}) == expected
    assert attention.kernel_for("auto", device=CPU, is_16_bit=is_16_bit, head_sizes={64}) == "segments"
    assert attention.kernel_for("flex", device=CUDA, is_16_bit=is_16_bit, head_sizes={64}) == "flex"


@pytest.mark.parametrize("wanted", ["varlen", "flex"])
def test_a_kernel_that_the_device_lacks_is_refused(wanted: str) -> None:
    with pytest.raises(RecipeError, match=f"training.packed_attention: {wanted} is not available here: .*cpu; use"):
        attention.kernel_for(wanted, device=CPU, is_16_bit=True, head_sizes={64})


@pytest.mark.parametrize(("sizes", "shown"), [({288}, "288"), ({100}, "100"), ({192, 128}, "128 and 192")])
def test_heads_that_flash_attention_lacks_are_computed_by_sdpa(
    sizes: set[int], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu(monkeypatch, (9, 0))
    assert attention.kernel_for("auto", device=CUDA, is_16_bit=True, head_sizes=sizes) == "segments"
    with pytest.raises(RecipeError, match=f"those of this model are {shown}; use"):
        attention.kernel_for("varlen", device=CUDA, is_16_bit=True, head_sizes=sizes)


def test_an_old_gpu_and_an_old_torch_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, (7, 5))
    with pytest.raises(RecipeError, match=r"capability 8\.0, and this one has 7\.5"):
        attention.kernel_for("varlen", device=CUDA, is_16_bit=True, head_sizes={64})
    gpu(monkeypatch, (9, 0))
    monkeypatch.setattr(attention, "varlen", SimpleNamespace(varlen_attn=lambda query, key: None))
    with pytest.raises(RecipeError, match="has no FlashAttention with windows"):
        attention.kernel_for("varlen", device=CUDA, is_16_bit=True, head_sizes={64})
