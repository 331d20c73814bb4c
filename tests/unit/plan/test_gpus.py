"""GPUs by name, as people write them."""

import pytest

from selfreward.errors import RecipeError
from selfreward.plan.gpus import GPUS, machine_of


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("H100", "H100", 1), ("8xH100", "H100", 8), ("8 x h100", "H100", 8), ("A100", "A100-80", 1),
        ("4xA100-40GB", "A100-40", 4), ("NVIDIA H100-SXM5", "H100", 1), ("8 x NVIDIA H100 80GB HBM3", "H100", 8),
        ("NVIDIA GeForce RTX 4090", "RTX-4090", 1),
        ("4090", "RTX-4090", 1), ("l40s", "L40S", 1), ("H100 PCIe", "H100-PCIe", 1),
        *((gpu.name, gpu.name, 1) for gpu in GPUS),
    ],
)  # fmt: skip
def test_a_gpu_is_found(text: str, name: str, count: int) -> None:
    machine = machine_of(text, engine_dtype="bfloat16", num_processes=1)
    assert (machine.name, machine.count, machine.is_measured) == (f"{count} x {name}", count, False)


def test_training_uses_a_gpu_for_each_process_and_the_engine_one() -> None:
    one, four = (machine_of("8xA100", engine_dtype="float32", num_processes=n) for n in (1, 4))
    assert four.training_flops == 4 * one.training_flops == 4 * 312e12
    assert four.engine_flops == one.engine_flops == 19.5e12
    assert machine_of("2xA100", engine_dtype="bfloat16", num_processes=4).training_flops == 2 * 312e12
    assert one.memory_bytes < 80 * 2**30


@pytest.mark.parametrize(
    ("text", "said"), [("H1000", "did you mean H100"), ("", "there are B200"), ("0xH100", "--gpu 0xH100")]
)
def test_an_unknown_gpu_is_refused_with_those_that_are_known(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        machine_of(text, engine_dtype="bfloat16", num_processes=1)
