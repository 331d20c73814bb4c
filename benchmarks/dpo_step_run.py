"""One contender in one process: its job, its result, and the measurement of its memory and the machine's speed."""

import multiprocessing
import os
import resource
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

BETA = 0.1
LEARNING_RATE = 1e-6
MAX_GRAD_NORM = 1.0
T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """The first `num_steps` * `pairs_per_step` pairs of the file, in its order.

    `micro`: pairs in a forward pass of TRL. `device`: cpu or cuda.
    """

    contender: str
    model: Path
    pairs: Path
    pairs_per_step: int
    num_steps: int
    threads: int
    device: str = "cpu"
    micro: int = 1
    # Summed log-probabilities of chosen and rejected, for `sampler`.
    reference: tuple[list[float], list[float]] | None = None


@dataclass(frozen=True)
class Result:
    """For each optimizer step, warm-up included: seconds since the end of the previous step, loss, gradient norm.

    `cpu_seconds` is the sum over all threads: on a shared machine it varies less than wall-clock time.
    `pass_seconds`: time of a reference pass over all pairs before the steps. `reference`: as in Job, if computed here.
    """

    seconds: list[float]
    cpu_seconds: list[float]
    loss: list[float]
    grad_norm: list[float]
    peak_gib: float
    pass_seconds: float = 0.0
    reference: tuple[list[float], list[float]] | None = None


def prepare(threads: int, *, device: str) -> Any:
    """Return the context for `in_child`: a fork server that has imported the libraries.

    On CUDA each child is spawned instead, because CUDA state does not survive a fork.
    """
    os.environ.update(
        OMP_NUM_THREADS=str(threads),
        OMP_WAIT_POLICY="passive",  # spinning threads make all times on a shared machine random
        HF_HUB_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        TQDM_DISABLE="1",
        TRANSFORMERS_VERBOSITY="error",
    )
    if device == "cuda":
        return multiprocessing.get_context("spawn")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "datasets", "transformers.models.llama", "trl.trainer.dpo_trainer"])
    return context


def in_child(context: Any, function: Callable[[Job], T], job: Job) -> T:
    """Return `function(job)`, run in a new process. Raises RuntimeError with the child's traceback when it fails."""
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sending, function, job))
    process.start()
    sending.close()
    try:
        failed, answer = receiving.recv()
    except EOFError:
        process.join()
        failed, answer = True, f"{function.__name__}: ended with exit code {process.exitcode}"
    process.join()
    if failed:
        raise RuntimeError(answer)
    result: T = answer
    return result


def _child(sending: Connection, function: Callable[[Job], Any], job: Job) -> None:
    import torch

    torch.set_num_threads(job.threads)
    try:
        sending.send((False, function(job)))
    except Exception:  # noqa: BLE001  # any exception is reported to the parent
        sending.send((True, traceback.format_exc()))


def now(device: str) -> float:
    """Return a clock's time in seconds, after all work on the device is done."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gib(device: str) -> float:
    """Return this process's peak memory in GiB: tensors on CUDA; resident memory, libraries included, on the CPU."""
    if device == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated() / 2**30)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20


def matrix_rate(job: Job) -> float:
    """Return the FLOPs per second of matrix products of the model's shapes.

    float32 with 1024 tokens on the CPU; bfloat16 with 8192 tokens on CUDA, with many products per reading of the clock.
    """
    import torch
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(job.model)
    hidden, intermediate = config.hidden_size, config.intermediate_size
    on_cuda = job.device == "cuda"
    num_tokens, num_products, dtype = (8192, 20, torch.bfloat16) if on_cuda else (1024, 1, torch.float32)
    flops = seconds = 0.0
    for inner, outer in ((hidden, hidden), (hidden, intermediate), (intermediate, hidden)):
        left, right = (torch.randn(n, inner, device=job.device, dtype=dtype) for n in (num_tokens, outer))
        times = []
        for _ in range(15):
            started = now(job.device)
            for _ in range(num_products):
                torch.nn.functional.linear(left, right)
            times.append((now(job.device) - started) / num_products)
        flops += 2 * num_tokens * inner * outer
        seconds += statistics.median(times)
    return flops / seconds
