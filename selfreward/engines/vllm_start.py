"""Starts vLLM inside this process without its log output, and restores the state of the process."""

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selfreward.devices import Gpu, visible_gpus
from selfreward.errors import RecipeError
from selfreward.inherited import for_this_process_alone
from selfreward.installation import broken_companions_explained
from selfreward.nvidia import require_triton
from selfreward.recipe import EngineSection

STEP_TOKENS = 4096
BATCH_INVARIANT = "VLLM_BATCH_INVARIANT"
BATCH_INVARIANT_CAPABILITY = (8, 0)
WORKER_EXTENSION = "selfreward.engines.worker.WeightProof"


def start_vllm(
    section: EngineSection,
    *,
    model: Path,
    tokenizer: Path,
    context_tokens: int,
    max_num_seqs: int,
    num_kv_blocks: int | None,
    trust_remote_code: bool,
) -> Any:
    """Return a `vllm.LLM` with the weights of `model`, in this process.

    `num_kv_blocks`: the size of the KV cache on a GPU; None lets vLLM measure what is free. Raises RecipeError for a
    model or settings that vLLM's configuration refuses, and InstallationError on a GPU where Triton cannot compile;
    other exceptions are not caught.
    """
    from pydantic import ValidationError

    gpus = visible_gpus()
    if gpus:
        require_triton()
    _set_environment(section, gpus)
    device = _device_options(section, gpus, context_tokens=context_tokens, num_kv_blocks=num_kv_blocks)
    if not gpus:
        # On the CPU vLLM still compiles its small sampling functions, which takes ten seconds and a C++ compiler that
        # a machine may lack; uncompiled, their cost is not measurable.
        import torch._dynamo

        torch._dynamo.config.disable = True
    with for_this_process_alone(), _restored_process_state(), _quiet(), broken_companions_explained():
        from vllm import LLM

        if not gpus:
            _avoid_amx_attention()

        try:
            return LLM(
                model=str(model),
                tokenizer=str(tokenizer),
                trust_remote_code=trust_remote_code,
                dtype=section.dtype,
                max_model_len=context_tokens,
                max_num_seqs=max_num_seqs,
                enable_prefix_caching=True,
                worker_extension_cls=WORKER_EXTENSION,
                use_tqdm_on_load=False,
                seed=0,
                **_parallel_options(section),
                **device,
            )
        except ValidationError as error:
            cause = " ".join(str(error.errors()[0]["msg"]).split())[:200]
            raise RecipeError(
                f"model {model}: vLLM refuses its configuration ({cause}); a model that vLLM supports is needed; use "
                "another one, or engine.kind: transformers"
            ) from error


def _parallel_options(section: EngineSection) -> dict[str, Any]:
    """Return the options of an engine of several GPUs: vLLM's scheduler in this process, and a process for each GPU.

    Named, because inside of a Ray actor vLLM might select its executor on Ray.
    """
    if section.tensor_parallel_size == 1:
        return {}
    return {"tensor_parallel_size": section.tensor_parallel_size, "distributed_executor_backend": "mp"}


def _device_options(
    section: EngineSection, gpus: Sequence[Gpu], *, context_tokens: int, num_kv_blocks: int | None
) -> dict[str, Any]:
    """Return the options of `vllm.LLM` that differ between GPUs and CPUs."""
    if gpus:
        blocks = {} if num_kv_blocks is None else {"num_gpu_blocks_override": num_kv_blocks}
        return {"gpu_memory_utilization": section.gpu_memory_utilization, "enable_sleep_mode": True, **blocks}
    return {
        # The same as VLLM_CPU_KVCACHE_SPACE, which accepts only integer GiB.
        "kv_cache_memory_bytes": int(section.kv_cache_gib * 2**30),
        "enforce_eager": True,
        # vLLM 0.31 splits prompts that do not fit into a step, and then rewinds the generators of seeded requests,
        # which only CUDA supports ("CPU Generator does not use offset"). So prompts are not split, and one always fits.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(STEP_TOKENS, context_tokens),
    }


def _set_environment(section: EngineSection, gpus: Sequence[Gpu]) -> None:
    """Set what vLLM reads from the environment when it is imported or started. Raises RecipeError."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    if section.tensor_parallel_size > 1:
        # vLLM would select it where CUDA is initialised, as here, with a warning. Its processes import what warns here.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
        os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    if section.seeded:
        # Draws with seeds never use FlashInfer's sampler, which would still be compiled for minutes at the start.
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if section.batch_invariant:
        _require_batch_invariance(gpus)
        os.environ[BATCH_INVARIANT] = "1"


def _require_batch_invariance(gpus: Sequence[Gpu]) -> None:
    """Raise RecipeError where vLLM 0.31 has no batch-invariant kernels (`determinism/batch_invariant.py`).

    They replace the matrix kernels of Ampere, and fix those of newer GPUs. Attention is FlashAttention, Triton or
    FlexAttention, among which vLLM selects by itself; it refuses to start for a model that needs another one.
    """
    found = f"{gpus[0].name} has compute capability {'.'.join(map(str, gpus[0].capability))}" if gpus else "no GPU"
    if not gpus or gpus[0].capability < BATCH_INVARIANT_CAPABILITY:
        raise RecipeError(
            f"engine.batch_invariant: found {found}; vLLM computes independently of the batch on NVIDIA GPUs of "
            "compute capability 8.0 or newer; set it to false"
        )
    if "vllm" in sys.modules and os.environ.get(BATCH_INVARIANT) != "1":
        raise RecipeError(
            "engine.batch_invariant: vLLM was imported in this process without it, and reads it only then; run this "
            "recipe in a process of its own"
        )


@contextmanager
def _restored_process_state() -> Iterator[None]:
    """Restore the global generators, which vLLM seeds, the number of threads, and `torch.set_num_threads`, which its
    CPU build replaces, so that later training in this process is not affected."""
    import numpy as np
    import torch

    set_num_threads, num_threads = torch.set_num_threads, torch.get_num_threads()
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads = set_num_threads
        torch.set_num_threads(num_threads)  # one thread is left where vLLM has processes of its own


def _avoid_amx_attention() -> None:
    """Let vLLM's CPU build use its attention for AVX-512 where it would use the one for AMX, for as long as it runs.

    The one for AMX in vLLM 0.31 and 0.32 attends wrongly: SmolLM2-135M in bfloat16 answers "What is the capital of
    France?" with "L'Étoile, la Marseillaise", where the one for AVX-512 gives "Paris", at the same speed.
    """
    from vllm.v1.attention.backends import cpu_attn

    choose = getattr(cpu_attn, "_get_attn_isa", None)
    if choose is None or hasattr(choose, "chosen_before"):
        return

    def chosen(*arguments: Any, **keywords: Any) -> str:
        found: str = choose(*arguments, **keywords)
        return "vec" if found == "amx" else found

    chosen.chosen_before = choose  # type: ignore[attr-defined]
    cpu_attn._get_attn_isa = chosen


@contextmanager
def _quiet() -> Iterator[None]:
    """Log only errors during the start, whose warnings are about settings chosen here, and also warnings afterwards.
    VLLM_LOGGING_LEVEL, when it is set, takes precedence."""
    logger = logging.getLogger("vllm")
    is_set = "VLLM_LOGGING_LEVEL" in os.environ
    if not is_set:
        os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        # It warns at every weight sync about tied output layers and tables that are not weights; both are verified.
        logging.getLogger("vllm.model_executor.model_loader.reload").setLevel(logging.ERROR)
        if not is_set:
            del os.environ["VLLM_LOGGING_LEVEL"]
            logger.setLevel(logging.WARNING)
