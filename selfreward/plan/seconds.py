"""Time estimates: a low and a high one, or from the measured rates of a started run.

Prefill and training are matrix multiplications; decoding reads all weights once for each token of a batch (roofline of
2402.16363, section 2). Real kernels reach a share of the measured rates; the shares are the assumptions below.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfreward.batch_sizes import max_num_seqs
from selfreward.plan.amounts import Work
from selfreward.plan.assumption import Assumption
from selfreward.plan.cluster import (
    DISK_GB_S,
    DRIVER_S,
    NUM_LOADS,
    TENSOR_PARALLEL_SHARE,
    Cluster,
    bytes_per_s,
    cluster_of,
    training_bytes,
)
from selfreward.plan.history import History
from selfreward.plan.machine import Machine
from selfreward.plan.memory import DEFAULT_TOKENS, engine_kind
from selfreward.plan.model_shape import BYTES, ModelShape
from selfreward.plan.work import IterationWork
from selfreward.recipe import Recipe
from selfreward.tables import TRAINING


@dataclass(frozen=True)
class Seconds:
    """A range of seconds, of which `real` were measured in this run."""

    low: float
    high: float
    real: float = 0.0

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.low + other.low, self.high + other.high, self.real + other.real)


PREFILL_SHARE = Assumption(0.7, 0.15)
DECODE_SHARE = Assumption(0.6, 0.1)
TRAINING_SHARE = Assumption(0.6, 0.15)
# Responses may end early.
GENERATED_SHARE = Assumption(0.5, 1.0)
# Overheads that no rate explains: kernel launches, Python, files.
STEP_OVERHEAD_S = Assumption(0.001, 0.02)
MICRO_BATCH_OVERHEAD_S = Assumption(0.01, 0.1)
STAGE_OVERHEAD_S = Assumption(0.05, 1.5)
TRAINING_OVERHEAD_S = Assumption(2.0, 20.0)
START_S: Mapping[str, Assumption] = {"vllm": Assumption(15.0, 90.0), "transformers": Assumption(3.0, 20.0)}
# Stages of a plan that a run does not have: weights on disk, and the program itself.
WEIGHTS, DRIVER = "weights", "driver"
# Range around a stage's measured rate in this run, applied to the same stage of a later iteration.
REAL_RATE = Assumption(0.8, 1.25)


@dataclass(frozen=True)
class _Rate:
    """Seconds per planned request (or pair), and per actual one; None when there was none."""

    per_planned_s: float
    per_real_s: float | None


def estimate(
    recipe: Recipe,
    work: Sequence[IterationWork],
    *,
    model: ModelShape,
    machine: Machine,
    history: History,
    micro_batch_tokens: int = DEFAULT_TOKENS,
) -> tuple[tuple[Seconds, ...], Seconds]:
    """Return the seconds of each iteration, and of the engine's start when any work is left."""
    stages = by_stage(
        recipe, work, model=model, machine=machine, history=history, micro_batch_tokens=micro_batch_tokens
    )
    start = START_S[engine_kind(recipe)]
    left = any(iteration.iteration not in history.finished for iteration in work)
    seconds = tuple(sum(found.values(), Seconds(0.0, 0.0)) for found in stages)
    return seconds, Seconds(start.fast, start.slow) if left else Seconds(0.0, 0.0)


def by_stage(
    recipe: Recipe,
    work: Sequence[IterationWork],
    *,
    model: ModelShape,
    machine: Machine,
    history: History,
    micro_batch_tokens: int = DEFAULT_TOKENS,
) -> tuple[dict[str, Seconds], ...]:
    """Return the seconds of each iteration by stage; those of a named machine also have the stages WEIGHTS, DRIVER."""
    clock = _Clock(recipe, model, machine, cluster_of(recipe, machine), micro_batch_tokens)
    rates = _rates(work, history)
    return tuple(_iteration(iteration, clock, rates, history) for iteration in work)


def _iteration(
    work: IterationWork, clock: "_Clock", rates: Mapping[str, _Rate], history: History
) -> dict[str, Seconds]:
    real = history.seconds.get(work.iteration, {})
    if work.iteration in history.finished:
        return {name: Seconds(seconds, seconds, seconds) for name, seconds in real.items()}
    stages = {
        name: _stage(name, size, clock.stage(work, name), real, rates, is_sure=name not in work.optional)
        for name, size in _sizes(work).items()
    }
    return stages if clock.machine.is_measured else {**stages, WEIGHTS: clock.weights(work), DRIVER: clock.driver(work)}


def _stage(
    name: str, size: float, estimated: Seconds, real: Mapping[str, float], rates: Mapping[str, _Rate], *, is_sure: bool
) -> Seconds:
    if name in real:
        return Seconds(real[name], real[name], real[name])
    if not is_sure:  # may not run at all
        return Seconds(0.0, estimated.high if name not in rates else rates[name].per_planned_s * size * REAL_RATE.slow)
    if name not in rates:
        return estimated
    rate = rates[name]
    low = rate.per_planned_s * size * REAL_RATE.fast
    high = estimated.high if rate.per_real_s is None else rate.per_real_s * size * REAL_RATE.slow
    return Seconds(low, max(low, high))


def _sizes(work: IterationWork) -> dict[str, float]:
    """Return the size with which the time of each stage grows: its requests to all models."""
    sizes: Counter[str] = Counter({name: stage.num_requests for name, stage in work.stages.items()})
    for name, others in work.outside_engine.items():
        sizes[name] += sum(other.num_requests for other in others.values())
    return {**sizes, TRAINING: work.update.num_pairs} if work.update.num_pairs else dict(sizes)


def _rates(work: Sequence[IterationWork], history: History) -> dict[str, _Rate]:
    """Return the rate of each stage that this run has finished.

    Iteration 0 is used only for stages that no other iteration has: its first stage includes the engine's start.
    """
    totals: dict[str, tuple[float, float, float]] = {}
    for iteration in sorted(work, key=lambda iteration: iteration.iteration == 0):
        number = iteration.iteration
        for name, size in _sizes(iteration).items():
            real = history.seconds.get(number, {}).get(name)
            if real is None or not size or (number == 0 and name in totals):
                continue
            done = history.usage.get(number, {}).get(name, {}).get("num_requests", 0.0)
            done = history.num_pairs.get(number, 0.0) if name == TRAINING else done
            if name in iteration.outside_engine and name not in iteration.stages:
                done = done or size  # reward models are not counted
            before = totals.get(name, (0.0, 0.0, 0.0))
            totals[name] = (before[0] + real, before[1] + size, before[2] + done)
    return {name: _Rate(s / size, s / done if done else None) for name, (s, size, done) in totals.items()}


@dataclass(frozen=True)
class _Clock:
    recipe: Recipe
    model: ModelShape
    machine: Machine
    cluster: Cluster
    micro_batch_tokens: int

    def weights(self, work: IterationWork) -> Seconds:
        """Estimate the time to save a checkpoint with its copy for the engines, and to read that copy."""
        engine, own = BYTES[self.recipe.engine.dtype], BYTES[self.recipe.training.weights_dtype]
        saved = (own + engine if engine < own else own) if work.update.num_pairs else 0
        num_bytes = self.model.num_parameters * (saved + NUM_LOADS * engine)
        return Seconds(num_bytes / DISK_GB_S.fast / 1e9, num_bytes / DISK_GB_S.slow / 1e9)

    def driver(self, work: IterationWork) -> Seconds:
        num_samples = sum(stage.num_sequences for stage in work.stages.values())
        return Seconds(num_samples * DRIVER_S.fast, num_samples * DRIVER_S.slow)

    @property
    def _gpu_memory(self) -> int | None:
        return self.machine.memory_bytes if self.machine.device == "cuda" else None

    def stage(self, work: IterationWork, name: str) -> Seconds:
        """Estimate the time of the engine and of training; the time of other models is unknown until they have run."""
        if name == TRAINING:
            return self._training(work)
        calls = work.stages[name].calls if name in work.stages else ()
        return sum((self._engine(call) for call in calls), Seconds(0.0, 0.0))

    def _engine(self, call: Work) -> Seconds:
        if not call.num_requests:
            return Seconds(0.0, 0.0)
        return Seconds(self._engine_s(call, fast=True), self._engine_s(call, fast=False))

    def _engine_s(self, work: Work, *, fast: bool) -> float:
        num_replicas = self.cluster.num_replicas
        length = work.num_prompt_tokens / work.num_requests
        computed = work.num_prompt_tokens / num_replicas
        if engine_kind(self.recipe) == "transformers":  # it computes a prompt again for each of its samples
            computed *= max(1.0, work.num_sequences / work.num_requests)
        elif fast:  # the prefix cache saves all shared prefixes
            computed -= work.num_repeated_tokens / num_replicas
        prefill_s = self.model.forward_flops(computed, context=length / 2) / self.machine.engine_flops
        prefill_s /= self._speed_up(fast=fast)
        num_steps, step_s = self._decoding(work, length, GENERATED_SHARE.at(fast=fast))
        step_s = step_s / self._speed_up(fast=fast) / DECODE_SHARE.at(fast=fast) + STEP_OVERHEAD_S.at(fast=fast)
        return prefill_s / PREFILL_SHARE.at(fast=fast) + num_steps * step_s + STAGE_OVERHEAD_S.at(fast=fast)

    def _decoding(self, work: Work, length: float, generated: float) -> tuple[float, float]:
        """Return the number of decoding steps and the seconds of one: the maximum of memory time and compute time.

        The first token of a sequence is computed with its prompt.
        """
        if work.max_generated_tokens <= 1:
            return 0.0, 0.0
        engine, tokens = self.recipe.engine, generated * work.max_generated_tokens
        num_sequences = math.ceil(work.num_sequences / self.cluster.num_replicas)
        batch = min(max_num_seqs(engine, self._gpu_memory), num_sequences)
        if engine_kind(self.recipe) == "transformers":
            batch = min(batch, max(1, int(engine.batch_tokens / (length + work.max_generated_tokens))))
        context = length + tokens / 2
        num_bytes = self.model.num_parameters * BYTES[engine.dtype]
        num_bytes += int(batch * context * self.model.kv_bytes_per_token(engine.dtype))
        step_s = max(
            num_bytes / self.machine.copied_bytes_per_s,
            self.model.forward_flops(batch, context=context) / self.machine.engine_flops,
        )
        return math.ceil(num_sequences / batch) * tokens, step_s

    def _speed_up(self, *, fast: bool) -> float:
        """Return how many times as fast a replica on several GPUs is as on one."""
        size = self.cluster.gpus_per_replica
        return 1.0 if size == 1 else size * TENSOR_PARALLEL_SHARE.at(fast=fast)

    def _training(self, work: IterationWork) -> Seconds:
        return Seconds(self._training_s(work, fast=True), self._training_s(work, fast=False))

    def _training_s(self, work: IterationWork, *, fast: bool) -> float:
        training = self.recipe.training
        # A backward pass costs two forward passes (2001.08361, section 2.1); gradient checkpointing adds one.
        num_passes = 4 if training.gradient_checkpointing else 3
        num_tokens = num_passes * work.update.num_training_tokens + work.update.num_tokens_without_gradient
        flops = self.model.forward_flops(num_tokens, context=work.update.longest_pair_tokens / 4)
        num_busy = self.cluster.num_busy
        update_s = flops / num_busy / self.machine.training_flops / TRAINING_SHARE.at(fast=fast)
        # One more micro-batch per step: passes without gradients use larger batches.
        size = max(1, self.micro_batch_tokens)
        num_micro_batches = math.ceil(num_tokens / num_passes / size / num_busy) + work.update.num_steps
        overhead_s = num_micro_batches * MICRO_BATCH_OVERHEAD_S.at(fast=fast) + TRAINING_OVERHEAD_S.at(fast=fast)
        computed_s = GENERATED_SHARE.at(fast=fast) * update_s
        talk_s = self._talk_s(num_micro_batches, work.update.num_steps, fast=fast)
        return (max(computed_s, talk_s) if fast else computed_s + talk_s) + overhead_s

    def _talk_s(self, num_micro_batches: int, num_steps: int, *, fast: bool) -> float:
        """Return the seconds in which GPUs exchange weights and gradients, which may overlap with computation."""
        cluster, num_weights = self.cluster, self.model.num_parameters
        lora = self.recipe.policy.lora
        num_trained = num_weights if lora is None else self.model.num_adapter_parameters(lora.rank)
        per_micro_batch, per_step = training_bytes(cluster, num_weights=num_weights, num_trained=num_trained)
        shards_s = per_micro_batch / bytes_per_s(cluster, self.machine, cluster.num_shards, fast=fast)
        copies_s = per_step / bytes_per_s(cluster, self.machine, cluster.num_trainers, fast=fast)
        return num_micro_batches * shards_s + num_steps * copies_s
