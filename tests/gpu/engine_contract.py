"""The tests of all engines on vLLM's build for CUDA, and cycles of sleep. `test_engine.py` runs this file in a process
for each model runner, because vLLM allows one engine that sleeps in a process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases.engine_tests import CONTEXT_TOKENS, EngineTests, ask, changed_copy, tiny_checkpoint

from selfreward.engines import build
from selfreward.parts import Engine
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint

SECTION = EngineSection(kind="vllm", dtype="float32", context_tokens=CONTEXT_TOKENS, gpu_memory_utilization=0.4)


class TestVllmOnCuda(EngineTests):
    tolerance_nats = 5e-3  # float32 in another order, or in TF32

    @pytest.fixture(scope="class")
    def first(self) -> Checkpoint:
        return tiny_checkpoint()

    @pytest.fixture(scope="class")
    def engine(self, first: Checkpoint) -> Iterator[Engine]:
        engine = build(SECTION, first=first)
        engine.load(first)
        yield engine
        engine.close()

    def test_the_model_runner_is_the_one_asked_for(self, engine: Engine) -> None:
        asked = os.environ.get("VLLM_USE_V2_MODEL_RUNNER")
        assert asked is None or engine.facts()["model_runner"] == {"0": "V1", "1": "V2"}[asked]

    def test_sleep_gives_the_memory_back_each_time(self, engine: Engine, first: Checkpoint, tmp_path: Path) -> None:
        from selfreward.engines.vllm_runtime import used_gib

        second = changed_copy(first, tmp_path / "other", scale=0.01)
        request, awake = ask(engine, "hello", seed=3), used_gib()
        engine.load(first)
        expected, asleep = engine.generate([request]), []
        for _ in range(3):
            for checkpoint in (second, first):
                engine.sleep()
                asleep.append(used_gib())
                engine.load(checkpoint)
                assert (engine.generate([request]) == expected) == (checkpoint is first)
        assert max(asleep) < 0.5 * awake
        assert asleep[-1] - asleep[0] < 0.5
        assert engine.facts()["gpu_gib_while_asleep"] == asleep[-1]
