"""Each kernel of packed attention against attention under the dense mask, forward and backward; time and memory."""

import functools
from collections.abc import Callable, Iterator

import torch
from models import random_pairs
from speed import peak_gib, reset_peak, seconds
from step import Step, main
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from selfreward.errors import SelfRewardError
from selfreward.updates.packing import attention, flex
from selfreward.updates.packing.layout import Layout, PairTokens, lay_out_pairs

Heads = tuple[int, int, int]
"""Heads of queries, heads of keys, and their size: SmolLM2, Qwen2.5-0.5B and Qwen2.5-7B."""
HEADS: tuple[Heads, ...] = ((9, 3, 64), (14, 2, 64), (28, 4, 128))
WINDOWS = (None, 100)
LONGEST_ORACLE = 4096
# Relative to the norm of the oracle. One of a hundred visible keys too many or too few gives 0.1.
LIMITS = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
COMPILED = ((0, 2, None), (1, 2, None), (2, 2, None), (2, 2, WINDOWS[1]), (0, 4, WINDOWS[1]))
LONG = (2048, 8192, 32768)
MAX_PEAK_GIB = 12.0  # 32k tokens; the scores of all pairs of tokens would take 60 GiB for 28 heads


def run(step: Step) -> None:
    lengths = (77, 200) if step.quick else (77, 513, 2048, LONGEST_ORACLE)
    known: dict[int, list[torch.Tensor]] = {}  # by length, what the first kernel computes
    for kernel in attention.KERNELS:  # the compiled one is the last
        for dtype in (torch.bfloat16, torch.float32):
            if reason := missing(kernel, dtype, step.device):
                step.figure(f"{kernel} {_name(dtype)}", f"not here: {reason}")
                continue
            for heads, window in cases(kernel, dtype, quick=step.quick):
                with step.attempt(f"{kernel} {_name(dtype)} heads {heads} window {window}"):
                    against_oracle(step, kernel, dtype, heads, window, lengths)
            if step.on_cuda and dtype == torch.bfloat16:
                _long(step, kernel, known)
    if step.on_cuda:
        with step.attempt("compilations of flex over 30 lengths"):
            _compilations(step)


def missing(kernel: str, dtype: torch.dtype, device: str) -> str:
    try:
        attention.kernel_for(kernel, device=torch.device(device), is_16_bit=dtype.itemsize == 2, head_sizes={64})
    except SelfRewardError as error:
        return str(error).partition(";")[0]
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def cases(kernel: str, dtype: torch.dtype, *, quick: bool) -> Iterator[tuple[Heads, int | None]]:
    for number, heads in enumerate(HEADS):
        for window in WINDOWS:
            # FlexAttention is compiled for each of these, which takes many seconds.
            is_needed = kernel != "flex" or (number, dtype.itemsize, window) in COMPILED
            if is_needed and not (quick and number == 2):
                yield heads, window


def layout_of(num_tokens: int) -> Layout:
    """Return a tree of pairs of at most 1,024 tokens, in which two pairs share the first half of their prompt."""
    num_pairs = -(-num_tokens // 1024)
    pairs = [*random_pairs(num_pairs, num_tokens // num_pairs, vocabulary=10_000)]
    for i in range(1, num_pairs, 2):
        half = len(pairs[i].prompt) // 2
        prompt = pairs[i - 1].prompt[:half] + pairs[i].prompt[half:]
        pairs[i] = PairTokens(prompt, pairs[i].chosen, pairs[i].rejected)
    return lay_out_pairs(pairs).padded(flex.BLOCK)


def inputs_of(layout: Layout, heads: Heads, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shapes = [(1, count, layout.num_tokens, heads[2]) for count in (heads[0], heads[1], heads[1])]
    return [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for shape in shapes]


def dense_mask(layout: Layout, window: int | None, device: str) -> torch.Tensor:
    """Return which query (row) sees which key (column), from the definition of the layout."""
    reach_T, position_T = (torch.from_numpy(x).to(device) for x in (layout.reach_T, layout.position_T))
    index_T = torch.arange(layout.num_tokens, device=device)
    visible_QK = (index_T[None] <= index_T[:, None]) & (index_T[:, None] < reach_T[None])
    if window is not None:
        visible_QK &= position_T[:, None] - position_T[None] < window
    return visible_QK


def oracle(inputs: list[torch.Tensor], layout: Layout, window: int | None) -> torch.Tensor:
    mask = dense_mask(layout, window, inputs[0].device.type)
    with sdpa_kernel(SDPBackend.MATH):
        return scaled_dot_product_attention(*inputs, attn_mask=mask, enable_gqa=True).transpose(1, 2)


def with_gradients(
    attend: Callable[[list[torch.Tensor]], torch.Tensor], inputs: list[torch.Tensor]
) -> list[torch.Tensor]:
    """Return the output and the gradients of a weighted sum of it."""
    out = attend(inputs)
    weights = torch.linspace(-1, 1, out.numel(), device=out.device).reshape(out.shape)
    weights = weights.bfloat16().to(out.dtype)  # the same numbers in both precisions
    return [out.detach(), *torch.autograd.grad(out, inputs, weights)]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _attend(kernel: str, layout: Layout, window: int | None) -> Callable[[list[torch.Tensor]], torch.Tensor]:
    return lambda inputs: attention.KERNELS[kernel](*inputs, layout, scaling=None, window=window)


def against_oracle(
    step: Step, kernel: str, dtype: torch.dtype, heads: Heads, window: int | None, lengths: tuple[int, ...]
) -> None:
    """Check the largest error of output and gradients over all lengths."""
    worst = 0.0
    for length in lengths:
        layout = layout_of(length)
        inputs = inputs_of(layout, heads, dtype, step.device)
        exact = [x.detach().float().requires_grad_() for x in inputs]
        expected = with_gradients(lambda given, layout=layout: oracle(given, layout, window), exact)
        found = with_gradients(_attend(kernel, layout, window), inputs)
        worst = max([worst, *(relative(one, other) for one, other in zip(found, expected, strict=True))])
    name = (
        f"{kernel} {_name(dtype)} heads {heads[0]}/{heads[1]} window {window}: error, T {lengths[0]} to {lengths[-1]}"
    )
    step.at_most(name, worst, LIMITS[dtype])


def _long(step: Step, kernel: str, known: dict[int, list[torch.Tensor]]) -> None:
    """The kernels against each other where the dense mask would not fit, their milliseconds and their memory."""
    for length in LONG:
        with step.attempt(f"{kernel} at {length}"):
            layout = layout_of(length)
            inputs = inputs_of(layout, HEADS[-1], torch.bfloat16, step.device)
            call = functools.partial(with_gradients, _attend(kernel, layout, None), inputs)
            reset_peak(step.device)
            found = call()
            step.at_most(f"{kernel} at {length}: peak, GiB", peak_gib(step.device), MAX_PEAK_GIB)
            first = known.setdefault(length, found)
            worst = max(relative(one, other) for one, other in zip(found, first, strict=True))
            step.at_most(f"{kernel} at {length}: difference from the first", worst, 2 * LIMITS[torch.bfloat16])
            step.figure(f"{kernel} ms at {length}", 1e3 * seconds(call, device=step.device, repeats=5), "ms")


def _compilations(step: Step) -> None:
    """FlexAttention over 30 lengths; past torch's limit it would compute the scores of all pairs of tokens."""
    if reason := missing("flex", torch.bfloat16, step.device):
        step.figure("compilations of flex over 30 lengths", f"not here: {reason}")
        return
    step.at_most("compilations of flex over 30 lengths", count_compilations(step.device, 30), 4)


def count_compilations(device: str, num_lengths: int) -> int:
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    before = counters["stats"]["unique_graphs"]
    for number in range(1, num_lengths + 1):
        layout = layout_of(300 * number)
        with_gradients(_attend("flex", layout, None), inputs_of(layout, HEADS[0], torch.bfloat16, device))
    return int(counters["stats"]["unique_graphs"] - before)


if __name__ == "__main__":
    main(run)
