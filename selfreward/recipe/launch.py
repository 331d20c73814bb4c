"""`launch`: where and in which processes a run computes."""

from typing import Literal, Self

from pydantic import model_validator

from selfreward.recipe.paths import InputPath
from selfreward.recipe.ray import RaySection
from selfreward.recipe.section import Changeable, Section
from selfreward.recipe.slurm import SlurmSection

REPLACED = ("nodes", "processes_per_node", "sharding")
"""The keys that a configuration file of accelerate replaces."""


class LaunchSection(Section):
    """Processes that compute the update, one per GPU. `fsdp` shards model and optimizer state over all of them, `hsdp`
    over those of each node. `accelerate_config` is a file of accelerate that says the same."""

    nodes: int = Changeable(1, ge=1)
    processes_per_node: int = Changeable(1, ge=1)
    sharding: Literal["none", "fsdp", "hsdp"] = Changeable("none")
    accelerate_config: InputPath | None = Changeable(None)
    ray: RaySection = RaySection()
    slurm: SlurmSection = SlurmSection()

    @property
    def num_processes(self) -> int:
        """The processes of all nodes together."""
        return self.nodes * self.processes_per_node

    @property
    def is_sharded(self) -> bool:
        return self.sharding != "none"

    @property
    def num_shards(self) -> int:
        """The number of processes over which one copy of the model is divided."""
        return {"none": 1, "fsdp": self.num_processes, "hsdp": self.processes_per_node}[self.sharding]

    @model_validator(mode="after")
    def _is_said_once(self) -> Self:
        defaults = type(self).model_fields
        if self.accelerate_config is not None and (
            twice := [name for name in REPLACED if getattr(self, name) != defaults[name].default]
        ):
            raise ValueError(
                f"accelerate_config and {', '.join(twice)} are both set; the file says the same as "
                f"{', '.join(REPLACED)}; remove these keys, or accelerate_config"
            )
        return self
