"""How a plan divides work over GPUs, and what it counts for their talk."""

from dataclasses import replace
from typing import Any

import pytest

from selfreward.plan.amounts import Work
from selfreward.plan.cluster import Cluster, bytes_per_s, cluster_of, training_bytes, with_processes
from selfreward.plan.gpus import machine_of
from selfreward.plan.history import History
from selfreward.plan.machine import Machine
from selfreward.plan.model_shape import ModelShape
from selfreward.plan.seconds import DRIVER, WEIGHTS, Seconds, by_stage
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe
from selfreward.workload import UpdateWork

SEVEN = ModelShape(7_600_000_000, 7_100_000_000, 28, 3584, 4, 128, 152_064)
WORK = IterationWork(
    1,
    {"responses": Work(65_536, 20_000_000, 130_000_000, 262_144, 512)},
    update=UpdateWork(
        num_pairs=60_000, num_steps=469, num_training_tokens=60_000_000, longest_pair_tokens=1500,
        num_tokens_without_gradient=120_000_000,
    ),
)  # fmt: skip


def recipe_of(**sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "models": {"policy": "random:tiny"}, "prompts": {"kind": "builtin"},
            "training": {"batch_size": 128}, **sections,
            "engine": {"kind": "vllm", "dtype": "bfloat16", **sections.get("engine", {})},
        }
    )  # fmt: skip


def machine(num_gpus: int, num_nodes: int = 1) -> Machine:
    return machine_of("H100", engine_dtype="bfloat16", num_gpus=num_gpus, num_nodes=num_nodes)


def stages(recipe: Recipe, on: Machine) -> dict[str, Seconds]:
    (found,) = by_stage(recipe, [WORK], model=SEVEN, machine=on, history=History(), micro_batch_tokens=16_384)
    return found


def test_eight_engines_take_an_eighth_of_the_time() -> None:
    one, eight = (stages(recipe_of(), machine(n))["responses"] for n in (1, 8))
    assert one.low / eight.low == pytest.approx(8, rel=0.02)
    assert one.high / eight.high == pytest.approx(8, rel=0.02)


def test_a_model_on_two_gpus_is_at_most_nearly_twice_as_fast() -> None:
    one = stages(recipe_of(engine={"replicas": 1}), machine(2))["responses"]
    two = stages(recipe_of(engine={"tensor_parallel_size": 2}), machine(2))["responses"]
    assert 1.5 < one.low / two.low < 1.81, "the overhead of a step is not divided"
    assert 0.9 < one.high / two.high <= 1.01


def test_eight_trainers_of_shards_are_slowed_by_their_talk_at_the_slow_end() -> None:
    one = stages(recipe_of(), machine(8))["training"]
    eight = stages(recipe_of(launch={"processes_per_node": 8, "sharding": "fsdp"}), machine(8))["training"]
    assert 4 < one.low / eight.low < 8.1
    assert 2 < one.high / eight.high < 8


def test_only_as_many_gpus_train_as_a_step_has_pairs() -> None:
    found = cluster_of(recipe_of(launch={"processes_per_node": 64}, training={"batch_size": 16}), machine(64, 8))
    assert (found.num_trainers, found.num_busy, found.num_replicas, found.num_nodes) == (64, 16, 64, 8)


def test_this_machine_is_one_device() -> None:
    here = replace(machine(8), is_measured=True)
    assert cluster_of(recipe_of(launch={"processes_per_node": 8}), here) == Cluster()
    assert {WEIGHTS, DRIVER} & stages(recipe_of(), here).keys() == set()
    assert {WEIGHTS, DRIVER} <= stages(recipe_of(), machine(8)).keys()


def test_bytes_of_shards_and_copies() -> None:
    """A thousand weights: gathered in 16 bits twice, reduced in 32 bits once, averaged over the copies."""
    sharded = Cluster(num_gpus=8, num_trainers=8, num_shards=8)
    assert training_bytes(sharded, num_weights=1000, num_trained=1000) == (7 / 8 * (4000 + 4000), 0)
    replicated = Cluster(num_gpus=8, num_trainers=8)
    assert training_bytes(replicated, num_weights=1000, num_trained=1000) == (0, 2 * 7 / 8 * 4000)
    hybrid = Cluster(num_gpus=16, num_nodes=2, num_trainers=16, num_shards=8)
    assert training_bytes(hybrid, num_weights=1000, num_trained=1000) == (7 / 8 * 8000, 2 * 1 / 2 * 4000 / 8)
    adapters = training_bytes(sharded, num_weights=1000, num_trained=10)
    assert adapters[0] == 7 / 8 * (4000 + 40)


def test_gpus_of_several_nodes_talk_over_the_network() -> None:
    cluster = Cluster(num_gpus=16, num_nodes=2)
    assert bytes_per_s(cluster, machine(16, 2), 8, fast=True) == 0.8 * 450e9
    assert bytes_per_s(cluster, machine(16, 2), 16, fast=False) == 12.5e9


def test_processes_are_divided_among_the_nodes_of_a_planned_machine() -> None:
    hybrid = recipe_of(launch={"processes_per_node": 8, "sharding": "hsdp"}).launch
    on_all = with_processes(hybrid, machine(64, 8), 64)
    assert (on_all.nodes, on_all.processes_per_node, on_all.num_shards) == (8, 8, 8)
    assert with_processes(hybrid, machine(64, 8), 3).num_processes == 3
