"""How calls are cut into blocks, how many replicas a recipe means, and which recipes are refused."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selfreward import recipe_file
from selfreward.devices import Gpu
from selfreward.engines import blocks, build, recipe_problems
from selfreward.engines.pool import replica, size
from selfreward.engines.pool.engine import PooledEngine
from selfreward.engines.pool.size import Share, num_replicas
from selfreward.errors import EngineError, RecipeError
from selfreward.model_files import checkpoint_of, materialise
from selfreward.recipe import EngineSection, ModelSection, RaySection
from selfreward.records import Checkpoint
from selfreward.requests import GenerationRequest, ScoreRequest

H200 = Gpu("NVIDIA H200", 150_754_820_096, (9, 0))


@pytest.fixture(scope="module")
def first() -> Checkpoint:
    return checkpoint_of(materialise(ModelSection(model="random:tiny")), 0)


def on_gpus(monkeypatch: pytest.MonkeyPatch, number: int, *, with_ray: bool = True) -> None:
    for module in (size, recipe_problems):
        monkeypatch.setattr(module, "visible_gpus", lambda: (H200,) * number)
        monkeypatch.setattr(module, "has_ray", lambda: with_ray)


# Blocks.


def requests_of(*counts: int, length: int = 3) -> list[GenerationRequest]:
    return [GenerationRequest((1,) * length, 5, n=n, seed=100 * i) for i, n in enumerate(counts)]


def test_blocks_of_vllm_have_all_draws_of_a_prompt_in_the_order_of_the_call(first: Checkpoint) -> None:
    engine = build(EngineSection(kind="vllm", max_num_seqs=8, dtype="float32"), first=first)
    cut = engine.generation_blocks(requests_of(4, 4, 1, 20, 7, 1))  # type: ignore[attr-defined]
    assert [block.indices for block in cut] == [(0, 1), (2,), (3,), (4, 5)]
    assert [request.n for block in cut for request in block.requests] == [4, 4, 1, 20, 7, 1]
    scored = [ScoreRequest((1,), (2,) * (i % 5)) for i in range(20)]
    cut = engine.score_blocks(scored)  # type: ignore[attr-defined]
    assert [block.indices for block in cut] == [(1, 2, 3, 4, 6, 7, 8, 9), (11, 12, 13, 14, 16, 17, 18, 19)]


def test_blocks_of_transformers_are_its_batches_and_keep_the_seeds(first: Checkpoint) -> None:
    section = EngineSection(kind="transformers", batch_tokens=32, dtype="float32")
    engine: Any = build(section, first=first)
    requests = [*requests_of(3, 6), *requests_of(2, length=20)]
    cut = engine.generation_blocks(requests)
    assert [block.indices for block in cut] == [(0, 1), (1,), (1,), (2,), (2,)]
    seeds = [
        (index, request.seed + draw)
        for block in cut
        for index, request in zip(block.indices, block.requests, strict=True)
        for draw in range(request.n)
    ]
    expected = [(i, request.seed + draw) for i, request in enumerate(requests) for draw in range(request.n)]
    assert seeds == expected
    for block in cut:  # a replica makes one batch of a block
        assert [again.requests for again in engine.generation_blocks(block.requests)] == [block.requests]


def test_results_are_put_together_by_request() -> None:
    cut = [blocks.Block((2, 0), ("c", "a")), blocks.Block((0,), ("a",))]
    assert blocks.joined(3, cut, [[["c0"], ["a0", "a1"]], [["a2"]]]) == [["a0", "a1", "a2"], [], ["c0"]]


# The number of replicas.


def test_auto_is_the_number_of_gpus_by_the_size_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "10.0.0.1:6379"
    for gpus, tensor_parallel_size, expected in ((0, 1, 1), (1, 1, 1), (8, 1, 8), (8, 2, 4), (3, 2, 1)):
        on_gpus(monkeypatch, gpus)
        assert num_replicas(EngineSection(tensor_parallel_size=tensor_parallel_size), None) == expected
    assert num_replicas(EngineSection(), address) is None, "the cluster's, once it is connected"
    assert num_replicas(EngineSection(replicas=3), address) == 3
    on_gpus(monkeypatch, 8, with_ray=False)
    assert num_replicas(EngineSection(), None) == 1


def test_a_node_holds_as_many_replicas_as_its_resources_allow() -> None:
    assert Share(2, 1).times_in({"GPU": 7.0, "CPU": 64.0}) == 3
    assert Share(1, 1).times_in({"GPU": 8.0, "CPU": 4.0}) == 4
    assert Share(1, 1).times_in({"CPU": 4.0}) == 0
    assert Share(0, 4).times_in({"CPU": 11.0, "GPU": 1.0}) == 2


def test_one_replica_is_the_engine_itself(first: Checkpoint) -> None:
    section = EngineSection(kind="transformers", dtype="float32")
    address = RaySection(address="auto")
    assert not isinstance(build(section, first=first), PooledEngine)
    one = section.model_copy(update={"replicas": 1})
    assert not isinstance(build(one, first=first, ray=address), PooledEngine)
    assert isinstance(build(section, first=first, ray=address), PooledEngine)


def test_no_secret_reaches_rays_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("HF_TOKEN", "hf-secret")
    monkeypatch.setenv("HF_HOME", "/models")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    settings = replica.Settings(num_threads=2)
    assert "secret" not in repr(settings)
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # by Ray
    monkeypatch.chdir("/")
    settings.apply()
    assert os.environ["HF_HOME"] == "/models" and "OMP_NUM_THREADS" not in os.environ


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("engine.min_replicas=3", "at most replicas, which is 2"),
        ("engine.tensor_parallel_size=2", "the transformers engine uses one GPU"),
        ("engine.replicas=0", "whole numbers from 1"),
        ("launch.ray.address=ray://host:10001", "allowed are null, auto and HOST:PORT"),
        ("launch.ray.address=host", "allowed are null, auto and HOST:PORT"),
    ],
)
def test_what_never_works_is_refused_by_the_schema(change: str, message: str) -> None:
    overrides = ["engine.replicas=2", change]
    with pytest.raises(RecipeError, match=message):
        recipe_file.load(Path(__file__).parents[3] / "recipes" / "tiny.yaml", overrides)


@pytest.mark.parametrize(
    ("engine", "gpus", "with_ray", "messages"),
    [
        ({"replicas": 2}, 0, True, []),
        ({"replicas": 2}, 0, False, ["found 2, and Ray is not installed"]),
        ({}, 4, False, ["auto is 1 without Ray, so 3 of 4 GPUs generate nothing"]),
        ({"tensor_parallel_size": 2}, 1, True, ["found 2; this machine has 1 GPUs"]),
        ({"tensor_parallel_size": 4, "replicas": 3}, 8, True, ["found 3, of 4 GPUs each; this machine has 8"]),
        ({"tensor_parallel_size": 8}, 8, True, ["has 12 attention heads"]),
        ({"tensor_parallel_size": 3}, 8, True, ["has 2 heads of keys and values"]),
        ({"tensor_parallel_size": 4}, 8, True, []),
    ],
)
def test_engines_that_do_not_fit_the_machine_or_the_model_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Any, gpus: int, with_ray: bool, messages: list[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 12, "num_key_value_heads": 2}))
    on_gpus(monkeypatch, gpus, with_ray=with_ray)
    launch = SimpleNamespace(ray=RaySection())
    facts: Any = SimpleNamespace(recipe=SimpleNamespace(launch=launch), models={"policy": Checkpoint("a", tmp_path, 0)})
    found = list(recipe_problems.problems(EngineSection(**engine), facts))
    assert len(found) == len(messages)
    for problem, message in zip(found, messages, strict=True):
        assert message in problem.text
        assert problem.is_warning == ("generate nothing" in message)
    cluster: Any = SimpleNamespace(ray=RaySection(address="auto"))
    facts.recipe.launch = cluster
    found = list(recipe_problems.problems(EngineSection(**engine), facts))
    assert all("machine has" not in problem.text for problem in found), "the cluster's GPUs are not known yet"


def test_a_node_without_the_files_or_with_another_version_says_so(
    first: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a replica changes the folder of its process
    engine: Any = build(EngineSection(kind="transformers", dtype="float32"), first=first)
    there = replica.Replica(engine, replica.Settings(num_threads=1))
    gone = Checkpoint("a", tmp_path / "gone", 1)
    with pytest.raises(EngineError, match=r"the model folder .*gone is not there; .* all nodes share"):
        there.load(gone, {})
    assert there.place().endswith(f"process {os.getpid()}")
    with pytest.raises(EngineError, match=r"selfreward .* is installed; the driver has 0\.0\.1"):
        replica.Replica(engine, replica.Settings(num_threads=1, version="0.0.1")).place()
