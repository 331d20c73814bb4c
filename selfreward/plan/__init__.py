"""What a run will cost, before it runs: engine requests and tokens, training, memory, disk, time.

The counts are upper bounds on the run's real prompts, measured with the model's own tokenizer: every response as long
as allowed, every one judged, every prompt a pair. The time is an estimate and a range; where the run has begun, its
own rates take the estimate's place. No weights are loaded, and no endpoint is asked.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from selfreward import prompts
from selfreward.engines.chat import ChatTokenizer
from selfreward.engines.models import materialise
from selfreward.plan.endpoints import beyond_budget
from selfreward.plan.history import History, read_history
from selfreward.plan.machine import Machine, measure_machine
from selfreward.plan.model_shape import ModelShape, read_shape
from selfreward.plan.seconds import Seconds, estimate
from selfreward.plan.storage import Disk, Memory, disk_of, memory_of
from selfreward.plan.text import render
from selfreward.plan.work import IterationWork, count_work
from selfreward.recipe import Recipe

__all__ = ["Plan", "plan", "render", "resolvable_gain"]

TIE_RATE = 0.4
"""Share of monitor prompts on which the anchor sees no difference, assumed for the resolution."""

POWER = 0.8
"""Share of runs in which a gain of that size is to be found."""


@dataclass(frozen=True)
class Plan:
    """`iterations` begins with the evaluation of M_0; `seconds` has one entry for each of them.

    `resolvable_gain` is in units of the win rate, from 0 to 0.5. `warnings` say what `selfreward run` would refuse or
    what makes the numbers worth less.
    """

    recipe: Recipe
    model: ModelShape
    machine: Machine
    iterations: tuple[IterationWork, ...]
    seconds: tuple[Seconds, ...]
    start: Seconds
    history: History
    memory: Memory
    disk: Disk
    resolvable_gain: float
    warnings: tuple[str, ...]


def plan(recipe: Recipe) -> Plan:
    """Counts the work of a recipe and measures this machine for about a second. Raises RecipeError as a run would."""
    source = prompts.build(recipe.prompts, evaluation=recipe.evaluation, iterations=recipe.iterations, seed=recipe.seed)
    folder = materialise(recipe.policy)
    model = read_shape(folder)
    trust = recipe.policy.trust_remote_code
    work, warnings = count_work(recipe, source=source, tokenizer=ChatTokenizer(folder, trust_remote_code=trust))
    machine = measure_machine(engine_dtype=recipe.engine.dtype, training_dtype=recipe.training.weights_dtype)
    history = read_history(Path(recipe.output_dir), recipe)
    seconds, start = estimate(recipe, work, model=model, machine=machine, history=history)
    return Plan(
        recipe=recipe,
        model=model,
        machine=machine,
        iterations=work,
        seconds=seconds,
        start=start,
        history=history,
        memory=memory_of(recipe, work, model=model, machine=machine),
        disk=disk_of(recipe, work, model=model),
        resolvable_gain=resolvable_gain(len(source.monitor_prompts())),
        warnings=(*warnings, *beyond_budget(recipe, work), *history.warnings),
    )


def resolvable_gain(
    num_prompts: int, *, tie_rate: float = TIE_RATE, level: float = 0.95, power: float = POWER
) -> float:
    """The true gain over 0.5 that a share `power` of runs find (interval above 0.5); a smaller one is found less often.

    An outcome is 1 or 0, each with probability (1 - ties) / 2, or 0.5. Paper: 2411.00640, its part on power (the
    smallest effect that a two-sided test of this level finds with this power, by the central limit theorem). With few
    prompts a run's own intervals are wider, and it finds less than this.
    """
    variance = (1 - tie_rate) / 4  # E (X - 1/2)^2 = (1 - ties) (1/2)^2
    z_level, z_power = NormalDist().inv_cdf((1 + level) / 2), NormalDist().inv_cdf(power)
    return min(0.5, (z_level + z_power) * math.sqrt(variance / num_prompts))  # (1.96 + 0.84) sd / sqrt(n)
