"""What `engine.dtype: auto` means on which device."""

from pathlib import Path

import pytest

from selfreward.dtypes import cpu_flags, dtype_of, engine_dtype, with_dtype
from selfreward.recipe import EngineSection
from tests.cases.plan import make_recipe

CORE = "processor : {}\nmodel name : a CPU\nflags : fpu sse2 avx2 {}\n\n"


@pytest.mark.parametrize(
    ("capability", "name"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((8, 9), "bfloat16"), ((12, 0), "bfloat16")]
)
def test_gpus_compute_in_bfloat16_from_capability_8_on(capability: tuple[int, int], name: str) -> None:
    found = dtype_of(capability=capability, flags=frozenset({"avx512_bf16"}))
    assert found.name == name and f"{capability[0]}.{capability[1]}" in found.reason


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ("", "float32"),
        ("avx512f avx512_vnni", "float32"),
        ("avx512f avx512_bf16", "bfloat16"),
        ("amx_bf16", "bfloat16"),
    ],
)
def test_cpus_need_instructions_for_it(tmp_path: Path, flags: str, name: str) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(CORE.format(0, flags) + CORE.format(1, flags))
    assert dtype_of(capability=None, flags=cpu_flags(file)).name == name


def test_every_core_needs_them(tmp_path: Path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(CORE.format(0, "avx512_bf16") + CORE.format(1, ""))
    assert cpu_flags(file) == {"fpu", "sse2", "avx2"}
    assert cpu_flags(tmp_path / "none") == frozenset()


def test_an_unknown_instruction_set_is_not_called_one_without_bfloat16() -> None:
    assert "unknown" in dtype_of(capability=None, flags=frozenset()).reason
    assert "no bfloat16" in dtype_of(capability=None, flags=frozenset({"avx2"})).reason


def test_a_dtype_of_the_recipe_is_taken_as_it_is() -> None:
    assert engine_dtype(EngineSection(dtype="float16")).name == "float16"
    recipe = make_recipe("engine.dtype=float16")
    assert with_dtype(recipe, "float32") is recipe


def test_auto_becomes_a_dtype_and_changes_nothing_else() -> None:
    recipe = make_recipe("engine.dtype=auto")
    here, kept = with_dtype(recipe), with_dtype(recipe, "float16")
    assert here.engine.dtype == engine_dtype(recipe.engine).name and kept.engine.dtype == "float16"
    assert kept.model_copy(update={"engine": recipe.engine}) == recipe
