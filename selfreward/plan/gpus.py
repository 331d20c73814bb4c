"""GPUs by name, for plans of machines that are not here: their memory and the peak figures of their makers."""

import difflib
import re
from dataclasses import dataclass
from typing import Final

from selfreward.errors import RecipeError
from selfreward.plan.machine import Machine

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """`memory_gib` is what a program can use of the installed memory, about.

    Bandwidth is in GB/s, `link_gb_s` that of NVLink, or of PCIe, in one direction. The peak rates are in TFLOP/s:
    bfloat16 in tensor cores without sparsity, and float32.
    """

    name: str
    memory_gib: float
    bandwidth_gb_s: float
    bfloat16_tflops: float
    float32_tflops: float
    link_gb_s: float


GPUS: Final = (
    Gpu("B200", 179, 8000, 2250, 80, 900),
    Gpu("H200", 140, 4800, 989, 67, 450),
    Gpu("H100", 79.6, 3350, 989, 67, 450),
    Gpu("H100-PCIe", 79.6, 2000, 756, 51, 64),
    Gpu("A100-80", 79.3, 2039, 312, 19.5, 300),
    Gpu("A100-40", 39.5, 1555, 312, 19.5, 300),
    Gpu("L40S", 44.5, 864, 362, 91.6, 32),
    Gpu("L4", 22.2, 300, 121, 30.3, 32),
    Gpu("A10G", 22.2, 600, 70, 31.2, 32),
    Gpu("RTX-6000-Ada", 47.5, 960, 364, 91.1, 32),
    Gpu("RTX-A6000", 47.5, 768, 155, 38.7, 56),
    Gpu("RTX-5090", 31.4, 1792, 209, 105, 64),
    Gpu("RTX-4090", 23.5, 1008, 165, 82.6, 32),
    Gpu("RTX-3090", 23.6, 936, 71, 35.6, 32),
)
_FORM = re.compile(r"(?:(\d{1,5})\s*[x×*]\s*)?(.+)", re.IGNORECASE)
_MEMORY = re.compile(r"\d+ ?gb|hbm\d?e?", re.IGNORECASE)
_NOISE = re.compile(r"nvidia|geforce|tesla|sxm\d?|gb$|[^a-z0-9]")


def machine_of(text: str, *, engine_dtype: str, num_gpus: int | None = None, num_nodes: int = 1) -> Machine:
    """Return the machine of `NAME` or `COUNTxNAME`, such as 8xH100; `num_gpus` in total, on `num_nodes` nodes.

    Raises RecipeError for an unknown name, and for numbers that are not those of a machine.
    """
    count, gpu = _parsed(text)
    if num_gpus is not None and count not in (1, num_gpus):
        raise RecipeError(f"--gpus {num_gpus}: --gpu names {count} GPUs; name one kind, as in --gpu {gpu.name}")
    count = num_gpus or count
    if not 0 < num_nodes <= count or count % num_nodes:
        raise RecipeError(
            f"--nodes {num_nodes}: {count} GPUs cannot be divided among them; all nodes have the same number of GPUs; "
            "correct --gpus or --nodes"
        )
    engine_tflops = gpu.float32_tflops if engine_dtype == "float32" else gpu.bfloat16_tflops
    return Machine(
        device="cuda",
        name=f"{count} x {gpu.name}" + (f" on {num_nodes} nodes" if num_nodes > 1 else ""),
        engine_flops=engine_tflops * 1e12,
        training_flops=gpu.bfloat16_tflops * 1e12,
        copied_bytes_per_s=gpu.bandwidth_gb_s * 1e9,
        memory_bytes=int(gpu.memory_gib * GIB),
        count=count,
        num_nodes=num_nodes,
        link_bytes_per_s=gpu.link_gb_s * 1e9,
        is_measured=False,
    )


def _parsed(text: str) -> tuple[int, Gpu]:
    found = _FORM.fullmatch(text.strip())
    known = {_key(gpu.name): gpu for gpu in GPUS}
    known |= {key.removeprefix("rtx"): gpu for key, gpu in known.items()} | {"a100": known["a10080"]}
    key = _key(found[2]) if found else ""
    if found and key not in known:  # as nvidia-smi names them: NVIDIA H100 80GB HBM3
        key = _key(_MEMORY.sub("", found[2]))
    if found is None or key not in known or found[1] == "0":
        meant = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {known[meant[0]].name}?" if meant else "name the most similar one of these"
        raise RecipeError(
            f"--gpu {text}: there is no such GPU; there are {', '.join(gpu.name for gpu in GPUS)}, with a number "
            f"before, as in 8xH100, for several; {hint}"
        )
    return int(found[1] or 1), known[key]


def _key(name: str) -> str:
    return _NOISE.sub("", name.lower())
