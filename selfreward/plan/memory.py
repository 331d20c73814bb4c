"""Memory of a run: the engine's, and the update's beside it (CPU) or in its place (GPU)."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward.plan.cluster import with_processes
from selfreward.plan.machine import Machine
from selfreward.plan.model_shape import BYTES, ModelShape
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe, TrainingSection
from selfreward.updates.budgets import DEFAULT_TOKENS
from selfreward.updates.memory import TrainingMemory, traced_memory
from selfreward.updates.settings import settings_of

ASLEEP_BYTES = 3 * 2**30  # of a sleeping engine on a GPU: CUDA's context and the pools of its graphs; a guess


@dataclass(frozen=True)
class Memory:
    """Memory in bytes of one GPU, or of the machine without one.

    `shared`: engine and trainer use the same memory at the same time, as on a CPU, where all `num_trainers` processes
    of an update do too. `training` is the memory of one of them, or None for a model whose activations cannot be
    counted; `micro_batch_tokens` is the largest micro-batch.
    """

    engine_weights: int
    engine_kv_cache: int
    training: TrainingMemory | None
    num_trainers: int
    micro_batch_tokens: int
    available: int
    shared: bool

    @property
    def engine(self) -> int:
        return self.engine_weights + self.engine_kv_cache

    @property
    def trainer(self) -> int:
        if self.training is None:
            return 0
        return self.num_trainers * self.training.peak(*self.micro_batch)

    @property
    def micro_batch(self) -> tuple[int, int, int]:
        """Tokens, labels and copied keys of the largest micro-batch: how many is known only with the responses.

        Every token may have a label; where no two pairs share a prompt, there are fewer copied keys than tokens.
        """
        return (self.micro_batch_tokens,) * 3

    @property
    def peak(self) -> int:
        return self.engine + self.trainer if self.shared else max(self.engine, self.trainer + ASLEEP_BYTES)


def memory_of(
    recipe: Recipe,
    work: Sequence[IterationWork],
    *,
    model: ModelShape,
    machine: Machine,
    training: TrainingMemory | None,
) -> Memory:
    """Return the memory of a run, where `training` is that of an update (`update_memory`)."""
    weights = model.num_parameters * BYTES[recipe.engine.dtype] // recipe.engine.tensor_parallel_size
    longest = max((iteration.update.longest_pair_tokens for iteration in work), default=0)
    on_cpu = machine.device == "cpu"
    return Memory(
        engine_weights=weights,
        engine_kv_cache=_kv_cache(recipe, weights, model=model, machine=machine),
        training=training,
        num_trainers=recipe.launch.num_processes if on_cpu else 1,
        micro_batch_tokens=micro_batch_tokens(recipe.training, longest, machine=machine, training=training),
        available=machine.memory_bytes,
        shared=on_cpu,
    )


def update_memory(recipe: Recipe, folder: Path, *, machine: Machine) -> TrainingMemory | None:
    """Return the memory of an update of the policy in `folder`, or None when it cannot be counted."""
    settings = settings_of(recipe)
    if machine.device == "cuda":  # as many processes as there are GPUs can start
        number = min(recipe.launch.num_processes, machine.count)
        settings = settings.model_copy(update={"launch": with_processes(settings.launch, machine, number)})
    return traced_memory(folder, settings, on_cuda=machine.device == "cuda")


def micro_batch_tokens(
    section: TrainingSection, longest_pair: int, *, machine: Machine, training: TrainingMemory | None
) -> int:
    """Return the maximum tokens of a micro-batch; a pair longer than the limit is its own micro-batch."""
    num_pairs = min(section.micro_batch_size or section.batch_size, section.batch_size)
    everything = num_pairs * longest_pair
    limit = section.micro_batch_tokens or everything
    if limit == "auto":
        on_cuda = machine.device == "cuda" and training is not None
        limit = (
            training.tokens_that_fit(machine.memory_bytes - ASLEEP_BYTES) if training and on_cuda else DEFAULT_TOKENS
        )
    return max(longest_pair, min(limit, everything))


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
    if recipe.engine.kind != "auto":
        return recipe.engine.kind
    return "vllm" if importlib.util.find_spec("vllm") is not None else "transformers"
