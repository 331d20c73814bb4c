"""Disk space of a run, from the sizes of its models."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward.plan.model_shape import BYTES, ModelShape
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe


@dataclass(frozen=True)
class Disk:
    """Disk space in bytes. `num_kept` checkpoints stay; the peak includes the new one and the saves of its training."""

    checkpoint: int
    num_kept: int
    save: int
    peak: int
    free: int


def _save_bytes(recipe: Recipe, model: ModelShape) -> int:
    """Return the bytes of a save: the trained weights and the optimizer's state. Those of adapters are not counted."""
    if recipe.policy.lora:
        return 0
    training, weight = recipe.training, BYTES[recipe.training.weights_dtype]
    # Two moments in the dtype of the weights, in float32, or in 8 bits each (float32 for embeddings); Adafactor stores
    # one number per row and one per column.
    moments = {"adamw": 2 * weight, "adamw_8bit": 2, "adamw_offload": 8, "adafactor": 0}[training.optimizer]
    embeddings = (8 - 2) * model.vocabulary * model.hidden_size if training.optimizer == "adamw_8bit" else 0
    return (weight + moments) * model.num_parameters + embeddings


def disk_of(recipe: Recipe, work: Sequence[IterationWork], *, model: ModelShape) -> Disk:
    """Return the disk space; `checkpoints.keep` retains the newest checkpoints and the best one."""
    num_iterations, keep = recipe.iterations.max, recipe.checkpoints.keep
    own, engines = BYTES[recipe.training.weights_dtype], BYTES[recipe.engine.dtype]
    # A copy for the engine where its numbers are smaller (`model_files/engine_copy.py`).
    checkpoint = model.num_parameters * (own + engines if engines < own else own)
    num_kept = num_iterations if keep is None else min(num_iterations, keep + 1)
    saves_any = any(iteration.update.num_steps > recipe.training.save_every_steps for iteration in work)
    save = _save_bytes(recipe, model) if saves_any else 0
    # A save is complete before the older save is removed; the same holds for checkpoints.
    peak = min(num_iterations, num_kept + 1) * checkpoint + 2 * save
    return Disk(checkpoint, num_kept, save, peak, shutil.disk_usage(_existing(Path(recipe.output_dir))).free)


def _existing(path: Path) -> Path:
    path = path.resolve()
    return next(parent for parent in (path, *path.parents) if parent.exists())
