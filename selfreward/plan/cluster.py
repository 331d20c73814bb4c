"""How a recipe uses several GPUs, and what their talk costs.

Engines: each replica is on `engine.tensor_parallel_size` GPUs, and gets an even part of every call. Training: one
process per GPU, at most as many as a step has pairs. Weights that are sharded are gathered for each micro-batch, twice,
and their gradients reduced once (2304.11277, section 3.2); weights that are replicated have their gradients averaged
once per step, over all GPUs or, between shards, over the nodes. Bytes per GPU of a ring: (n-1)/n of all for a gather or
a reduction, twice that for an average.
"""

from dataclasses import dataclass
from typing import Final

from selfreward.plan.assumption import Assumption
from selfreward.plan.machine import Machine
from selfreward.recipe import LaunchSection, Recipe

TENSOR_PARALLEL_SHARE: Final = Assumption(0.9, 0.5)
"""Of the rate of k GPUs, what one model on them reaches."""
LINK_SHARE: Final = Assumption(0.8, 0.4)
NETWORK_GB_S: Final = Assumption(50.0, 12.5)
"""Of one GPU to other nodes: 400 Gb/s, and 100 Gb/s."""
DISK_GB_S: Final = Assumption(5.0, 0.5)
DRIVER_S: Final = Assumption(0.0005, 0.003)
"""Of the program itself, per sample (benchmarks/driver_overhead.py)."""
NUM_LOADS: Final = 2
"""Of weights into the engines in an iteration: M_t after training, and M_{t-1} or M_0 where it is asked again."""
GRADIENT_BYTES: Final = 4
GATHERED_BYTES: Final = 2


@dataclass(frozen=True)
class Cluster:
    """`num_shards`: the GPUs over which a copy of the weights is sharded in training; 1 for none. `num_busy`: the
    trainers that have a pair of each step."""

    num_gpus: int = 1
    num_nodes: int = 1
    num_replicas: int = 1
    gpus_per_replica: int = 1
    num_trainers: int = 1
    num_busy: int = 1
    num_shards: int = 1

    @property
    def num_copies(self) -> int:
        return self.num_trainers // self.num_shards


def cluster_of(recipe: Recipe, machine: Machine) -> Cluster:
    """Return how a recipe uses a named machine; a measured one is this one, with one device."""
    if machine.is_measured:
        return Cluster()
    engine, launch = recipe.engine, recipe.launch
    fitting = max(1, machine.count // engine.tensor_parallel_size)
    num_trainers = min(launch.num_processes, machine.count)
    per_node = max(1, num_trainers // machine.num_nodes)
    return Cluster(
        num_gpus=machine.count,
        num_nodes=machine.num_nodes,
        num_replicas=fitting if engine.replicas == "auto" else min(engine.replicas, fitting),
        gpus_per_replica=engine.tensor_parallel_size,
        num_trainers=num_trainers,
        num_busy=min(num_trainers, recipe.training.batch_size),
        num_shards={"none": 1, "fsdp": num_trainers}.get(launch.sharding, per_node),
    )


def with_processes(launch: LaunchSection, machine: Machine, number: int) -> LaunchSection:
    """Return the section with this number of processes, on all nodes of the machine where they suffice for them."""
    nodes = machine.num_nodes if number % machine.num_nodes == 0 else 1
    return launch.model_copy(update={"nodes": nodes, "processes_per_node": number // nodes})


def training_bytes(cluster: Cluster, *, num_weights: int, num_trained: int) -> tuple[float, float]:
    """Return the bytes that a GPU receives per micro-batch and per step."""
    sharded = (cluster.num_shards - 1) / cluster.num_shards
    copies = (cluster.num_copies - 1) / cluster.num_copies
    per_micro_batch = sharded * (2 * GATHERED_BYTES * num_weights + GRADIENT_BYTES * num_trained)
    per_step = 2 * copies * GRADIENT_BYTES * num_trained / cluster.num_shards
    return per_micro_batch, per_step


def bytes_per_s(cluster: Cluster, machine: Machine, num_peers: int, *, fast: bool) -> float:
    """Return the rate between `num_peers` GPUs: of the links of a node, or of the network where they are on several."""
    if num_peers <= cluster.num_gpus // cluster.num_nodes:
        return machine.link_bytes_per_s * LINK_SHARE.at(fast=fast)
    return NETWORK_GB_S.at(fast=fast) * 1e9
