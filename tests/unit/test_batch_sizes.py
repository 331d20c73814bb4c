"""What `engine.max_num_seqs: auto` means on which device, with CUDA properties behind one function."""

import pytest

from selfreward import batch_sizes, dtypes, engines, recipe
from selfreward.devices import Gpu
from selfreward.engines import in_process
from selfreward.model_files import checkpoint_of, materialise
from selfreward.plan.gpus import machine_of
from selfreward.recipe import EngineSection, ModelSection

H200 = Gpu("NVIDIA H200", 150_754_820_096, (9, 0))
L4 = Gpu("NVIDIA L4", 23_600_000_000, (8, 9))


@pytest.mark.parametrize(("gpus", "expected"), [((H200,), 1024), ((L4,), 256), ((), 256)])
def test_auto_follows_the_memory_of_the_engines_gpu(
    gpus: tuple[Gpu, ...], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_process, "visible_gpus", lambda: gpus)
    first = checkpoint_of(materialise(ModelSection(model="random:tiny")), 0)
    for section, number in ((EngineSection(kind="transformers"), expected), (EngineSection(max_num_seqs=7), 7)):
        engine = engines.build(section.model_copy(update={"kind": "transformers"}), first=first)
        assert engine.facts()["max_num_seqs"] == number


@pytest.mark.parametrize(("name", "expected"), [("H100", 1024), ("A100-80", 1024), ("A100-40", 256), ("RTX-4090", 256)])
def test_the_gpus_of_a_plan_have_the_number_of_a_run_on_them(name: str, expected: int) -> None:
    machine = machine_of(name, engine_dtype="bfloat16")
    assert batch_sizes.max_num_seqs(EngineSection(), machine.memory_bytes) == expected


def test_the_dtype_is_that_of_the_weakest_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    dtypes._of_this_machine.cache_clear()
    monkeypatch.setattr(dtypes, "visible_gpus", lambda: (H200, Gpu("NVIDIA T4", 15 * 2**30, (7, 5))))
    try:
        assert dtypes.engine_dtype(EngineSection()).name == "float32"
    finally:
        dtypes._of_this_machine.cache_clear()


@pytest.mark.parametrize("value", [0, "all", 1.5])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="max_num_seqs"):
        recipe.EngineSection.model_validate({"max_num_seqs": value})
