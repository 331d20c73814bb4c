"""The GPUs that this process can use. The one place that asks CUDA for their properties."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """`memory_bytes` is the whole memory of the device; `capability` is its compute capability."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


FIRST_BFLOAT16 = (8, 0)
"""GPUs multiply in bfloat16 from this compute capability (Ampere) on; older ones emulate it, slowly."""


def computes_in_bfloat16() -> bool:
    """Return whether there are GPUs, and all multiply in bfloat16."""
    gpus = visible_gpus()
    return bool(gpus) and all(gpu.capability >= FIRST_BFLOAT16 for gpu in gpus)


def visible_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch sees, in its order; none on a machine without."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(gpu.name, gpu.total_memory, (gpu.major, gpu.minor)) for gpu in found)
