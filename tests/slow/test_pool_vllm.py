"""Two engines of vLLM's CPU build on Ray: the bytes of one, and the proof of the weights on each."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cases.engine_tests import CONTEXT_TOKENS, ask, changed_copy, tiny_checkpoint

from selfreward.devices import visible_gpus
from selfreward.engines import build
from selfreward.engines.pool.engine import PooledEngine
from selfreward.recipe import EngineSection
from selfreward.records import Checkpoint
from selfreward.requests import ScoreRequest

pytest.importorskip("ray")
pytest.importorskip("vllm")

SECTION = EngineSection(
    kind="vllm", dtype="float32", context_tokens=CONTEXT_TOKENS, kv_cache_gib=0.25, max_num_seqs=8, replicas=1
)


@pytest.fixture(scope="module")
def first() -> Checkpoint:
    return tiny_checkpoint()


@pytest.fixture(scope="module")
def engines(first: Checkpoint) -> Iterator[tuple[Any, PooledEngine]]:
    one, two = build(SECTION, first=first), build(SECTION.model_copy(update={"replicas": 2}), first=first)
    assert isinstance(two, PooledEngine) and not isinstance(one, PooledEngine)
    yield one, two
    one.close()
    two.close()


@pytest.mark.skipif(bool(visible_gpus()), reason="on a GPU one engine computes a call as a whole")
def test_two_replicas_give_the_bytes_of_one_engine(
    engines: tuple[Any, PooledEngine], first: Checkpoint, tmp_path: Path
) -> None:
    one, two = engines
    requests = [ask(two, "shared beginning " * 5 + "x" * i, seed=100 * i, n=3, max_tokens=12) for i in range(12)]
    scored = [ScoreRequest((1, 2, 3), tuple(range(4, 4 + i))) for i in range(20)]
    assert len(one.generation_blocks(requests)) == 6 and len(one.score_blocks(scored)) == 3
    second = changed_copy(first, tmp_path / "second", scale=0.01)
    recorded: list[Any] = []
    two.resume_from({}, recorded.append)
    for checkpoint in (first, second, first):
        one.load(checkpoint)
        two.load(checkpoint)
        assert two.generate(requests) == one.generate(requests)
        assert two.score(scored) == one.score(scored)
        replicas = two._replicas
        assert replicas is not None
        syncs = [slot.facts["last_weight_sync"] for slot in replicas.ready]
        assert [sync["checkpoint_id"] for sync in syncs] == [checkpoint.id] * 2
        assert min(sync["num_tensors_compared"] for sync in syncs) > 10
    assert two.usage()["num_weight_syncs"] == one.usage()["num_weight_syncs"] == 2
    assert len(recorded) == 1 and recorded[0]["kv_cache"]["num_blocks"] > 0
