"""Several nodes in a batch job: the lines of its script that start Ray on them, and the recipe that uses it."""

import shlex
import sys
from pathlib import Path
from typing import Final

from selfreward.errors import RecipeError
from selfreward.launch.slurm.container import inside
from selfreward.launch.slurm.placeholders import replaced
from selfreward.recipe import RaySection, Recipe, SlurmSection

OBJECT_STORE_BYTES: Final = 2**27  # a block of requests, and its results: some megabytes

_LINES: Final = Path(__file__).with_name("nodes.sh")


def start_ray(slurm: SlurmSection, logs: Path, working_folder: Path) -> str:
    """Return the lines that start Ray on all nodes; the engine waits until each has come (`launch.ray.nodes`)."""
    program = ["ray"] if slurm.container else [sys.executable, "-m", "ray.scripts.scripts"]
    cpus = [f"--cpus-per-task={slurm.cpus}"] if slurm.cpus else []
    values = {
        "logs_folder": shlex.quote(str(logs)),
        "cpus": str(slurm.cpus or "${SLURM_CPUS_ON_NODE:-1}"),
        "store": str(OBJECT_STORE_BYTES),
        "ray": shlex.join([*cpus, *inside(slurm, working_folder), *program]),
        "others": str(slurm.nodes - 1),
    }
    return replaced(_LINES.read_text(encoding="utf-8").rstrip(), values)


def on_its_nodes(recipe: Recipe) -> Recipe:
    """Return the recipe as a job on several nodes runs it: with the Ray cluster that its script starts."""
    launch = recipe.launch
    if launch.slurm.nodes == 1:
        return recipe
    if launch.ray.address is not None:
        raise RecipeError(
            f"launch.slurm.nodes: found {launch.slurm.nodes}, with launch.ray.address {launch.ray.address}; the script "
            "of a job on several nodes starts Ray on them; remove launch.ray, or set launch.slurm.nodes to 1"
        )
    ray = RaySection(address="auto", nodes=launch.slurm.nodes)  # RAY_ADDRESS says where
    return recipe.model_copy(update={"launch": launch.model_copy(update={"ray": ray})})
