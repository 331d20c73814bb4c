"""One vLLM engine of two ranks, on its CPU build: the tests of all engines, and the proof of each rank's weights."""

from collections.abc import Iterator

import pytest
from cases.engine_tests import CONTEXT_TOKENS, EngineTests, ask, tiny_checkpoint

from selfreward.devices import visible_gpus
from selfreward.engines import build
from selfreward.parts import Engine
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint

pytest.importorskip("vllm")
pytestmark = pytest.mark.skipif(bool(visible_gpus()), reason="tests/gpu has the engine on GPUs")


@pytest.fixture(scope="module")
def first() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def engine(first: Checkpoint) -> Iterator[Engine]:
    section = EngineSection(
        kind="vllm", dtype="float32", context_tokens=CONTEXT_TOKENS, kv_cache_gib=0.25, tensor_parallel_size=2
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_SIM_MULTI_NUMA", "1")  # vLLM wants a NUMA node for each rank
        engine = build(section, first=first)
        yield engine
        engine.close()


class TestTwoRanks(EngineTests):
    tolerance_nats = 1e-4


def test_the_weights_of_both_ranks_are_proved(engine: Engine, first: Checkpoint) -> None:
    engine.load(first)
    two = engine.facts()["last_weight_sync"]
    alone = build(EngineSection(kind="transformers", dtype="float32", context_tokens=CONTEXT_TOKENS), first=first)
    alone.load(first)
    one = alone.facts()["last_weight_sync"]
    assert two["num_tensors_compared"] > one["num_tensors_compared"]
    assert two["canary_logprob"] == pytest.approx(one["canary_logprob"], abs=1e-3)
    request = ask(engine, "hello", temperature=0.0)
    assert engine.generate([request])[0][0].token_ids == alone.generate([request])[0][0].token_ids
