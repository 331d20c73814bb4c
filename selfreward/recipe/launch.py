"""`launch`: where and in which processes a run computes."""

from typing import Literal

from selfreward.recipe.ray import RaySection
from selfreward.recipe.section import Changeable, Section
from selfreward.recipe.slurm import SlurmSection


class LaunchSection(Section):
    """Processes of this machine that compute the update, one per GPU. `fsdp` shards model and optimizer state."""

    num_processes: int = Changeable(1, ge=1)
    sharding: Literal["none", "fsdp"] = Changeable("none")
    ray: RaySection = RaySection()
    slurm: SlurmSection = SlurmSection()
