"""Problems of `launch`: processes that cannot start, and sharding that would not shard."""

from collections.abc import Iterator

from selfreward.problems import Problem
from selfreward.ray_cluster import INSTALL, has_ray
from selfreward.recipe import LaunchSection
from selfreward.updates.settings import Settings


def launch_problems(settings: Settings) -> Iterator[Problem]:
    launch = settings.launch
    if launch.nodes > 1:
        yield from _nodes(launch)
    if launch.is_sharded:
        yield from _sharding(settings)
    if launch.num_processes > 1 and launch.nodes == 1:
        yield from _gpus(launch)


def _nodes(launch: LaunchSection) -> Iterator[Problem]:
    """What the nodes have is known when the update starts there."""
    if not has_ray():
        yield Problem(
            f"launch.nodes: {launch.nodes}, but the package ray is not installed, which starts training on several "
            f"nodes; install it with: {INSTALL}, or set launch.nodes to 1"
        )
    if launch.ray.address is None:
        yield Problem(
            f"launch.nodes: {launch.nodes} without launch.ray.address; a Ray cluster of at least {launch.nodes} nodes "
            "is needed, of which this machine is one; start it (`ray start`), and set the address to auto"
        )


def _sharding(settings: Settings) -> Iterator[Problem]:
    import torch

    launch, kind = settings.launch, f"launch.sharding: {settings.launch.sharding}"
    if launch.nodes == 1 and torch.cuda.device_count() == 0:
        # accelerate shards on accelerators only; on the CPU it would silently replicate the model.
        yield Problem(f"{kind} without CUDA; a model can be sharded over GPUs only; use none")
    if launch.sharding == "hsdp" and launch.nodes == 1:
        yield Problem(f"{kind} with one node; it shards in a node and replicates across nodes; use fsdp")
    if launch.num_shards == 1:
        yield Problem(f"{kind} with one process in a group; it needs at least 2; raise launch.processes_per_node")
    if settings.training.weights_dtype != "float32" and settings.lora is None:
        yield Problem(
            f"training.weights_dtype: bfloat16 with {kind}; accelerate keeps the trained weights of a "
            "sharded model in float32 and computes in bfloat16; use float32"
        )


def _gpus(launch: LaunchSection) -> Iterator[Problem]:
    import torch

    if 0 < (num_gpus := torch.cuda.device_count()) < launch.processes_per_node:
        yield Problem(
            f"launch.processes_per_node: {launch.processes_per_node}, but this machine has {num_gpus} GPUs; one "
            f"process per GPU is allowed; use at most {num_gpus}"
        )
