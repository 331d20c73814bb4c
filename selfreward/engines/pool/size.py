"""How many engines a recipe asks for, and what each of them takes."""

from dataclasses import dataclass

from selfreward.devices import visible_gpus
from selfreward.ray_cluster import has_ray
from selfreward.recipe import EngineSection


@dataclass(frozen=True)
class Share:
    """The GPUs and the logical CPUs of one replica."""

    num_gpus: int
    num_cpus: int

    def times_in(self, resources: dict[str, float]) -> int:
        """Return how many replicas these resources of a node can hold."""
        held = int(resources.get("CPU", 0)) // self.num_cpus
        return min(held, int(resources.get("GPU", 0)) // self.num_gpus) if self.num_gpus else held


def num_replicas(section: EngineSection, address: str | None) -> int | None:
    """Return the number of replicas; None when it is that of a cluster's GPUs, to which nothing is connected yet."""
    if section.replicas != "auto":
        return section.replicas
    if not has_ray():
        return 1
    if address is not None:
        return None
    return max(1, len(visible_gpus()) // section.tensor_parallel_size)
