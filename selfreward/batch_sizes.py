"""How many sequences the engine decodes at once, for `engine.max_num_seqs: auto`."""

from typing import Final

from selfreward.recipe import EngineSection

SMALL_BATCH: Final = 256
LARGE_BATCH: Final = 1024
LARGE_MEMORY: Final = 80 * 10**9
"""A batch of 1,024 is vLLM's own default on devices of this size; the KV cache of smaller ones seldom holds as many."""


def max_num_seqs(section: EngineSection, gpu_memory_bytes: int | None) -> int:
    """Return the recipe's number; for `auto`, that of a device with this memory (None: there is no GPU)."""
    if section.max_num_seqs != "auto":
        return section.max_num_seqs
    return LARGE_BATCH if (gpu_memory_bytes or 0) >= LARGE_MEMORY else SMALL_BATCH
