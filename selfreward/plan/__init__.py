"""What a run will cost, before it runs: engine requests and tokens, training, memory, disk, time.

The counts are upper bounds on the run's real prompts, measured with the model's own tokenizer: every response as long
as allowed, every one judged, every prompt a pair. The time is an estimate and a range; where the run has begun, its
own rates take the estimate's place. No weights are loaded, and no endpoint is asked.
"""

from dataclasses import dataclass
from pathlib import Path

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

__all__ = ["Plan", "plan", "render"]


@dataclass(frozen=True)
class Plan:
    """`iterations` begins with the evaluation of M_0; `seconds` has one entry for each of them.

    `warnings` say what `selfreward run` would refuse or what makes the numbers worth less.
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
        warnings=(*warnings, *beyond_budget(recipe, work), *history.warnings),
    )
