"""What is asked of vLLM on a GPU, with CUDA properties behind one function and a vLLM that records its calls."""

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import engines
from selfreward.devices import Gpu
from selfreward.engines import in_process, vllm, vllm_runtime, vllm_start
from selfreward.engines.vllm import VllmEngine
from selfreward.errors import RecipeError
from selfreward.model_files import checkpoint_of, materialise
from selfreward.recipe import EngineSection, ModelSection
from selfreward.records import Checkpoint

H200 = Gpu("NVIDIA H200", 150_754_820_096, (9, 0))
T4 = Gpu("NVIDIA T4", 15_800_000_000, (7, 5))


class RecordingLlm:
    """`vllm.LLM`: its arguments and its calls."""

    started: list[dict[str, Any]] = []  # noqa: RUF012
    free_blocks = 1000

    def __init__(self, **arguments: Any) -> None:
        self.started.append(arguments)
        self.calls: list[str] = []
        blocks = arguments.get("num_gpu_blocks_override") or RecordingLlm.free_blocks
        cache = SimpleNamespace(num_gpu_blocks=blocks, block_size=16)
        self.llm_engine = SimpleNamespace(vllm_config=SimpleNamespace(cache_config=cache, use_v2_model_runner=True))

    def collective_rpc(self, method: str, kwargs: Any = None) -> list[Any]:
        if method == "attention_backends":
            return [["FLASH_ATTN"]]
        self.calls.append(f"{method} {kwargs['weights_path'].rsplit('/', 1)[-1]}")
        return [None]

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {tags[0]}")

    def reset_prefix_cache(self) -> None: ...


class UnprovedEngine(VllmEngine):
    def _verify(self, checkpoint: Checkpoint) -> None:
        self._loaded = checkpoint


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Gpu]]:
    found = [H200]
    for module in (in_process, vllm, vllm_runtime, vllm_start):
        monkeypatch.setattr(module, "visible_gpus", lambda: tuple(found))
    monkeypatch.setattr(vllm, "used_gib", lambda: 2.5)
    monkeypatch.setattr(RecordingLlm, "started", [])
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("VLLM_")]:
            patch.delenv(name)
        patch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=RecordingLlm))
        before = dict(os.environ)
        yield found
        for name in os.environ.keys() - before.keys():
            del os.environ[name]


@pytest.fixture
def first() -> Checkpoint:
    return checkpoint_of(materialise(ModelSection(model="random:tiny")), 0)


def engine_of(first: Checkpoint, **keys: Any) -> UnprovedEngine:
    return UnprovedEngine(EngineSection(kind="vllm", context_tokens=512, **keys), first=first)


def test_facts_name_what_vllm_chose_and_its_memory_while_asleep(gpus: list[Gpu], first: Checkpoint) -> None:
    engine = engine_of(first)
    engine.load(first)
    engine.sleep()
    facts = engine.facts()
    assert (facts["model_runner"], facts["attention"], facts["max_num_seqs"]) == ("V2", "FLASH_ATTN", 1024)
    assert facts["kv_cache"]["num_blocks"] == 1000 and facts["kv_cache"]["block_tokens"] == 16
    assert facts["gpu_gib_while_asleep"] == 2.5
    assert (engine._llm.started[0]["max_num_seqs"], "num_gpu_blocks_override" in engine._llm.started[0]) == (
        1024,
        False,
    )


def test_a_resumed_run_keeps_the_size_of_its_kv_cache(
    gpus: list[Gpu], first: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[Any] = []
    engine = engine_of(first)
    engine.resume_from({}, recorded.append)
    engine.load(first)
    (facts,) = recorded  # before anything is generated
    monkeypatch.setattr(RecordingLlm, "free_blocks", 990)  # another process has a little of the memory
    for keys, blocks in (({}, 1000), ({"gpu_memory_utilization": 0.5}, 990), ({"max_num_seqs": 8}, 990)):
        resumed = engine_of(first, **keys)
        resumed.resume_from(facts, recorded.append)
        resumed.load(first)
        assert resumed.facts()["kv_cache"]["num_blocks"] == blocks
        assert recorded[-1]["kv_cache"]["num_blocks"] == blocks
    with monkeypatch.context() as patch:
        patch.setenv("VLLM_USE_V2_MODEL_RUNNER", "0")  # its blocks may have another size
        other = engine_of(first)
        other.resume_from(facts, recorded.append)
        other.load(first)
        assert other.facts()["kv_cache"]["num_blocks"] == 990
    gpus[0] = Gpu("NVIDIA H100", 85_520_809_984, (9, 0))
    other = engine_of(first)
    other.resume_from(facts, recorded.append)
    other.load(first)
    assert other.facts()["kv_cache"]["num_blocks"] == 990


@pytest.mark.parametrize(
    ("level", "to_same", "reloads"), [(2, True, True), (1, True, False), (1, False, True), (2, False, True)]
)
def test_waking_reads_the_weights_unless_they_were_kept(
    level: int, to_same: bool, reloads: bool, gpus: list[Gpu], first: Checkpoint
) -> None:
    engine = engine_of(first, sleep_level=level)
    engine.load(first)
    engine.sleep()
    engine.sleep()
    engine.load(first if to_same else Checkpoint("other", first.path, 1))
    swap = [f"swap_weights {first.path.name}"] if reloads else []
    assert engine._llm.calls == [f"sleep {level}", "wake weights", *swap, "wake kv_cache"]


def test_weights_that_were_never_proved_are_read_again(gpus: list[Gpu], first: Checkpoint) -> None:
    """After a failed weight sync host memory has weights of nobody knows which checkpoint."""
    engine = engine_of(first, sleep_level=1)
    engine.load(first)
    engine._loaded = None
    engine.sleep()
    engine.wake()
    assert f"swap_weights {first.path.name}" in engine._llm.calls


@pytest.mark.parametrize(("seeded", "expected"), [(True, "0"), (False, None)])
def test_flashinfers_sampler_is_used_only_without_seeds(
    seeded: bool, expected: str | None, gpus: list[Gpu], first: Checkpoint
) -> None:
    engine_of(first, seeded=seeded).load(first)
    assert os.environ.get("VLLM_USE_FLASHINFER_SAMPLER") == expected


def test_batch_invariance_is_set_before_vllm_is_imported(
    gpus: list[Gpu], first: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="was imported in this process without it"):
        engine_of(first, batch_invariant=True).load(first)

    class Loader(importlib.abc.Loader):
        def exec_module(self, module: Any) -> None:
            assert os.environ["VLLM_BATCH_INVARIANT"] == "1"
            module.LLM = RecordingLlm

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: Any) -> Any:
            return importlib.machinery.ModuleSpec(name, Loader()) if name == "vllm" else None

    del sys.modules["vllm"]  # that of the fixture, which removes the module of this test too
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    engine = engine_of(first, batch_invariant=True)
    engine.load(first)
    assert engine.facts()["batch_invariant"] and "in any batch" in engine.facts()["determinism"]


def test_batch_invariance_needs_a_gpu_that_vllm_supports(
    gpus: list[Gpu], first: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus[0] = T4
    with pytest.raises(RecipeError, match=r"NVIDIA T4 has compute capability 7\.5; .* 8\.0 or newer"):
        engine_of(first, batch_invariant=True).load(first)
    gpus.clear()
    with pytest.raises(RecipeError, match="found no GPU"):
        engine_of(first, batch_invariant=True).load(first)
    with pytest.raises(ValueError, match="draws without seeds depend on the batch"):
        EngineSection(batch_invariant=True, seeded=False)
    with pytest.raises(ValueError, match="the transformers engine has no such mode"):
        EngineSection(batch_invariant=True, kind="transformers")
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RecipeError, match="only vLLM has such a mode"):
        engines.build(EngineSection(batch_invariant=True), first=first)


def test_the_guarantee_on_a_gpu_promises_equal_batches_and_no_equal_kernels(gpus: list[Gpu], first: Checkpoint) -> None:
    assert "is not proved" in engine_of(first).facts()["determinism"]
    assert "none" in engine_of(first, seeded=False).facts()["determinism"]
    gpus.clear()
    assert "the same machine gives the same bytes" in engine_of(first).facts()["determinism"]
