"""The GPUs that this process can use. The one place that asks CUDA for their properties."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """`memory_bytes` is the whole memory of the device; `capability` is its compute capability."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


def visible_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch sees, in its order; none on a machine without."""
    import torch

    if not torch.cuda.is_available():
        return ()
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return tuple(Gpu(gpu.name, gpu.total_memory, (gpu.major, gpu.minor)) for gpu in found)
