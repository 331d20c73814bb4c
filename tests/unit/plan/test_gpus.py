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
    machine = machine_of(text, engine_dtype="bfloat16")
    assert (machine.name, machine.count, machine.is_measured) == (f"{count} x {name}", count, False)


def test_rates_are_those_of_one_gpu() -> None:
    machine = machine_of("8xA100", engine_dtype="float32")
    assert (machine.training_flops, machine.engine_flops) == (312e12, 19.5e12)
    assert machine.memory_bytes < 80 * 2**30 and machine.link_bytes_per_s == 300e9


def test_gpus_on_nodes() -> None:
    machine = machine_of("H100", engine_dtype="bfloat16", num_gpus=64, num_nodes=8)
    assert (machine.name, machine.count, machine.num_nodes) == ("64 x H100 on 8 nodes", 64, 8)
    assert machine_of("8xH100", engine_dtype="bfloat16", num_gpus=8).count == 8


@pytest.mark.parametrize(
    ("text", "num_gpus", "num_nodes", "said"),
    [
        ("8xH100", 64, 8, "--gpus 64: --gpu names 8 GPUs"), ("H100", 10, 4, "--nodes 4: 10 GPUs cannot be divided"),
        ("H100", 4, 8, "--nodes 8: 4 GPUs"), ("H100", 8, -1, "--nodes -1"), ("H100", -8, 1, "-8 GPUs"),
    ],
)  # fmt: skip
def test_numbers_that_are_no_machine_are_refused(text: str, num_gpus: int, num_nodes: int, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        machine_of(text, engine_dtype="bfloat16", num_gpus=num_gpus, num_nodes=num_nodes)


@pytest.mark.parametrize(
    ("text", "said"), [("H1000", "did you mean H100"), ("", "there are B200"), ("0xH100", "--gpu 0xH100")]
)
def test_an_unknown_gpu_is_refused_with_those_that_are_known(text: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        machine_of(text, engine_dtype="bfloat16")
