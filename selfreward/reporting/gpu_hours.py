"""GPU-hours: what a run holds, busy or not, and what a cluster's accounts count."""

from collections.abc import Mapping
from typing import Any

from selfreward.recipe import Recipe

CPU = "cpu"


def num_gpus(manifest: Mapping[str, Any], recipe: Recipe) -> int:
    """Return the GPUs of the engines or of the trainers, whichever are more; 0 on a CPU and before an engine's start.

    All of them are held from start to end: engines and trainers take turns on them.
    """
    engine = manifest.get("facts", {}).get("engine", {})
    if not isinstance(engine, Mapping) or engine.get("device", CPU) == CPU:
        return 0
    replicas = engine.get("replicas", {}).get("num", 1)
    return max(int(replicas) * recipe.engine.tensor_parallel_size, recipe.launch.num_processes)


def gpu_hours(seconds: float, number: int) -> float:
    return round(seconds * number / 3600, 4)


def gpu_hours_by_stage(seconds: Mapping[str, float], number: int) -> dict[str, float]:
    """Return the GPU-hours of each stage; nothing for a run on a CPU."""
    return {stage: gpu_hours(spent, number) for stage, spent in seconds.items()} if number else {}
