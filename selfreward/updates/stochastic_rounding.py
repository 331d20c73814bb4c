"""AdamW on bfloat16 weights that rounds each new weight up or down at random, nearer numbers with more probability.

Rounding to nearest loses every update of less than half a rounding step, 0.2 to 0.4 % of the weight; rounded at random,
updates arrive on average (2010.06192, section 4). This is torchao's AdamW, which computes a step in float32. Its first
moments are bfloat16 and its second ones float32; with `adamw_8bit` both are blockwise 8-bit (2110.02861), except those
of embeddings, which then are float32. torch compiles the step once for each shape of a parameter.
"""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from typing import Any

import torch
import torch._dynamo
from torch import Tensor

from selfreward.nvidia import missing_for_triton
from selfreward.seeding import seed_of

BETAS, EPSILON = (0.9, 0.999), 1e-8  # transformers' defaults, of every AdamW here


def rounding_adamw(
    groups: list[dict[str, Any]], rate: float, *, is_8_bit: bool, embeddings: set[int]
) -> torch.optim.Optimizer:
    """Return the optimizer; `embeddings` are the ids of the parameters whose moments have no 8 bits."""
    from torchao.optim import AdamW8bit, _AdamW

    class With32BitEmbeddings(_Compiled, AdamW8bit):  # type: ignore[misc]
        def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
            if id(p) in embeddings:
                return torch.zeros_like(p, dtype=torch.float32)
            buffer: Tensor = super()._new_buffer(p, signed)
            return buffer

    class WithFloat32SecondMoment(_Compiled, _AdamW):  # type: ignore[misc]
        def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
            # In bfloat16 a second moment would never fall: it decays by 0.1 %, less than half a rounding step.
            if not signed:
                return torch.zeros_like(p, dtype=torch.float32)
            buffer: Tensor = super()._new_buffer(p, signed)
            return buffer

    optimizer: torch.optim.Optimizer = (With32BitEmbeddings if is_8_bit else WithFloat32SecondMoment)(
        groups, lr=rate, betas=BETAS, eps=EPSILON, bf16_stochastic_round=True
    )
    return optimizer


class _Compiled:
    """torchao's step is compiled, also where vLLM's build for the CPU has switched off compilation for itself."""

    def step(self, *args: Any) -> Any:
        with torch._dynamo.config.patch(disable=False):
            return super().step(*args)  # type: ignore[misc]


@contextlib.contextmanager
def seeded(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Make the rounding of a step depend on `seed` and the step's number alone, in every process alike.

    The compiled step seeds its own generator from torch's default one of the device.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(seed, step, "training", "rounding"))
        yield


def missing() -> tuple[str, str] | None:
    """Return what the compiled step needs and this machine lacks, and how to get it; None when it has everything."""
    if importlib.util.find_spec("torchao") is None:
        return "the package torchao", "install it with: pip install 'selfreward-lm[optimizers]'"
    if torch.cuda.is_available():
        if importlib.util.find_spec("triton") is None:
            return "the package triton", "install it with: pip install triton"
        needed = " and ".join(missing_for_triton())
        return (needed, "install them, on Debian and Ubuntu with: apt-get install gcc python3-dev") if needed else None
    compilers = (os.environ.get("CXX", ""), "g++", "clang++")
    if any(shutil.which(command) for command in compilers if command):
        return None
    return "a C++ compiler", "install g++, or name a compiler in the environment variable CXX"
