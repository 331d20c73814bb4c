"""Memory and disk space of a run, from the sizes of its models."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward.plan.machine import Machine
from selfreward.plan.model_shape import BYTES, ModelShape
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe, TrainingSection

LOGIT_BYTES = 3 * 4  # the logits, their softmax and its gradient, float32


@dataclass(frozen=True)
class Memory:
    """Memory in bytes. `shared`: engine and trainer use the same memory at the same time, as on a CPU."""

    engine_weights: int
    engine_kv_cache: int
    trainer_states: int
    trainer_logits: int
    available: int
    shared: bool

    @property
    def peak(self) -> int:
        engine, trainer = self.engine_weights + self.engine_kv_cache, self.trainer_states + self.trainer_logits
        return engine + trainer if self.shared else max(engine, trainer)


@dataclass(frozen=True)
class Disk:
    """Disk space in bytes. `num_kept` checkpoints stay; the peak includes the new one and the saves of its training."""

    checkpoint: int
    num_kept: int
    save: int
    peak: int
    free: int


def memory_of(recipe: Recipe, work: Sequence[IterationWork], *, model: ModelShape, machine: Machine) -> Memory:
    training, dtype = recipe.training, recipe.engine.dtype
    weights = model.num_parameters * BYTES[dtype]
    longest = max((iteration.update.longest_pair_tokens for iteration in work), default=0)
    # Weights, gradients and the optimizer's state (1910.02054, section 3.1).
    # Adapters and their states are small compared with the weights. Memory is per GPU, but shared by CPU processes.
    if recipe.policy.lora:
        states = BYTES[training.weights_dtype] * model.num_parameters
    else:
        states = _bytes_with_state(training, model, copies=2)
    if machine.device == "cpu":
        states *= recipe.launch.num_processes
    elif recipe.launch.sharding == "fsdp":
        states //= min(recipe.launch.num_processes, machine.count)
    return Memory(
        engine_weights=weights,
        engine_kv_cache=_kv_cache(recipe, weights, model=model, machine=machine),
        trainer_states=states,
        trainer_logits=micro_batch_tokens(training, longest) * model.vocabulary * LOGIT_BYTES,
        available=machine.memory_bytes,
        shared=machine.device == "cpu",
    )


def _bytes_with_state(training: TrainingSection, model: ModelShape, *, copies: int) -> int:
    """Return the bytes of `copies` of all weights, and of the optimizer's state."""
    dtype = BYTES[training.weights_dtype]
    # Two moments in the dtype of the weights, or in 8 bits each (float32 for embeddings); Adafactor stores one number
    # per row and one per column.
    state = {"adamw": 2 * dtype, "adamw_8bit": 2, "adafactor": 0}[training.optimizer] * model.num_parameters
    if training.optimizer == "adamw_8bit":
        state += (8 - 2) * model.vocabulary * model.hidden_size
    return copies * dtype * model.num_parameters + state


def micro_batch_tokens(training: TrainingSection, longest_pair: int) -> int:
    """Return the maximum tokens of a micro-batch; a pair longer than the limit is its own micro-batch."""
    num_pairs = min(training.micro_batch_size or training.batch_size, training.batch_size)
    return max(longest_pair, min(training.micro_batch_tokens or num_pairs * longest_pair, num_pairs * longest_pair))


def _kv_cache(recipe: Recipe, weights: int, *, model: ModelShape, machine: Machine) -> int:
    engine = recipe.engine
    if engine_kind(recipe) == "transformers":
        return engine.batch_tokens * model.kv_bytes_per_token(engine.dtype)
    if machine.device == "cpu":
        return int(engine.kv_cache_gib * 2**30)
    # On a GPU vLLM takes its whole share of the memory at the start.
    return max(0, int(engine.gpu_memory_utilization * machine.memory_bytes) - weights)


def engine_kind(recipe: Recipe) -> str:
    """Return vllm or transformers, as `auto` chooses on this machine."""
    import importlib.util

    if recipe.engine.kind != "auto":
        return recipe.engine.kind
    return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"


def disk_of(recipe: Recipe, work: Sequence[IterationWork], *, model: ModelShape) -> Disk:
    """Return the disk space; `checkpoints.keep` retains the newest checkpoints and the best one."""
    num_iterations, keep = recipe.iterations.max, recipe.checkpoints.keep
    own, engines = BYTES[recipe.training.weights_dtype], BYTES[recipe.engine.dtype]
    # A copy for the engine where its numbers are smaller (`model_files/engine_copy.py`).
    checkpoint = model.num_parameters * (own + engines if engines < own else own)
    num_kept = num_iterations if keep is None else min(num_iterations, keep + 1)
    saves_any = any(iteration.update.num_steps > recipe.training.save_every_steps for iteration in work)
    save = _bytes_with_state(recipe.training, model, copies=1) if saves_any else 0
    # A save is complete before the older save is removed; the same holds for checkpoints.
    peak = min(num_iterations, num_kept + 1) * checkpoint + 2 * save
    return Disk(checkpoint, num_kept, save, peak, shutil.disk_usage(_existing(Path(recipe.output_dir))).free)


def _existing(path: Path) -> Path:
    path = path.resolve()
    return next(parent for parent in (path, *path.parents) if parent.exists())
