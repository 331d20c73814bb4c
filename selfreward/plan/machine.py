"""The speed of this machine, measured for about a second: matrix multiplication and memory bandwidth."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from selfreward.devices import computes_in_bfloat16
from selfreward.nvidia import require_usable_gpu

SECONDS_EACH = 0.15
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Machine:
    """Rates of one device are the best of a few sizes, or a maker's peak figures; a run reaches a share of them.

    `memory_bytes` is the memory of one device, `count` the number of devices, on `num_nodes` nodes, and
    `link_bytes_per_s` what a device of a node receives from the others at most.
    """

    device: str
    name: str
    engine_flops: float
    training_flops: float
    copied_bytes_per_s: float
    memory_bytes: int
    count: int = 1
    num_nodes: int = 1
    link_bytes_per_s: float = 1.0
    is_measured: bool = True


def measure_machine(*, engine_dtype: str, training_dtype: str) -> Machine:
    """Measure this machine. On CUDA float32 training multiplies in bfloat16 where supported, as the trainer does."""
    import torch

    require_usable_gpu()
    on_cuda = torch.cuda.is_available()
    device = "cuda" if on_cuda else "cpu"
    if computes_in_bfloat16():
        training_dtype = "bfloat16"
    rates = {dtype: _matrix_rate(device, dtype) for dtype in {engine_dtype, training_dtype}}
    return Machine(
        device=device,
        name=torch.cuda.get_device_name() if on_cuda else f"{torch.get_num_threads()} CPU threads",
        engine_flops=rates[engine_dtype],
        training_flops=rates[training_dtype],
        copied_bytes_per_s=_copy_rate(device),
        memory_bytes=torch.cuda.mem_get_info()[1] if on_cuda else _host_memory(),
    )


def _matrix_rate(device: str, dtype: str) -> float:
    """Return floating-point operations per second."""
    import torch

    rates = []
    for size in (4096, 8192) if device == "cuda" else (256, 1024):
        a, b = (torch.ones(size, size, dtype=getattr(torch, dtype), device=device) for _ in range(2))
        rates.append(2 * size**3 / _seconds_of(partial(torch.matmul, a, b), device))
    return max(rates)


def _copy_rate(device: str) -> float:
    """Return bytes per second, reads plus writes."""
    import torch

    num_bytes = 2**30 if device == "cuda" else 2**27
    source = torch.ones(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * num_bytes / _seconds_of(lambda: target.copy_(source), device)


def _seconds_of(action: Callable[[], Any], device: str) -> float:
    """Return the time of the fastest call within the time limit; other processes can only slow a call down."""
    import torch

    best = float("inf")
    action()
    until = time.perf_counter() + SECONDS_EACH
    while time.perf_counter() < until or best == float("inf"):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        action()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def _host_memory() -> int:
    """Return the memory available to this process: the machine's, or a container's lower limit."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(installed, int(CGROUP_LIMIT.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # no limit, or not a number
        return installed
