"""Clock, memory and speed limits of the device."""

import gc
import time
from collections.abc import Callable

import torch


def now(device: str) -> float:
    """Return a clock's time in seconds, after all work on the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(function: Callable[[], object], *, device: str, repeats: int) -> float:
    """Return the seconds of a call, a mean over `repeats` after one that warms up."""
    function()
    started = now(device)
    for _ in range(repeats):
        function()
    return (now(device) - started) / repeats


def matrix_rate(device: str) -> float:
    """Return the FLOP/s of square matrix products: bfloat16 on CUDA, float32 on the CPU."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (512, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in "ab")
    return 2 * size**3 / seconds(lambda: left @ right, device=device, repeats=30)


def copy_bandwidth(device: str) -> float:
    """Return the bytes per second, read and written, of copies of a large tensor."""
    source = torch.zeros(2**30 if device == "cuda" else 2**24, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device=device, repeats=10)


def reset_peak(device: str) -> None:
    """Begin a measurement of the peak; trainers and models that are no longer used are freed first."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float:
    """Return the peak of the memory of tensors since `reset_peak`; 0 on a CPU, where nothing counts it."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else 0.0
