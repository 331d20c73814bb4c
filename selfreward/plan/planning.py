"""The cost of a run, before it runs: engine requests and tokens, training, memory, disk, time.

The counts are upper bounds on the run's real prompts, measured with the model's own tokenizer: every response has the
maximum length, every response is judged, every prompt gives a pair. The time is an estimated range; for a started run,
its measured rates replace the estimate. No weights are loaded, and no endpoint is queried.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfreward.dtypes import EngineDtype, engine_dtype
from selfreward.plan.endpoints import beyond_budget
from selfreward.plan.history import History, read_history, started_recipe
from selfreward.plan.machine import Machine, measure_machine
from selfreward.plan.model_shape import ModelShape, read_shape
from selfreward.plan.seconds import Seconds, estimate
from selfreward.plan.storage import Disk, Memory, disk_of, memory_of
from selfreward.plan.work import IterationWork, count_work
from selfreward.recipe import Recipe
from selfreward.settled import settled
from selfreward.tools import Tools, problems, tools_of


@dataclass(frozen=True)
class Plan:
    """`iterations` starts with the evaluation of M_0; `seconds` has one entry for each iteration.

    `warnings` list what `selfreward run` would refuse, and what makes the numbers less reliable.
    """

    recipe: Recipe
    dtype: EngineDtype
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
    """Count the work of a recipe and measure this machine for about a second. Raises RecipeError as a run would."""
    started_with = started_recipe(Path(recipe.output_dir).expanduser())
    chosen = engine_dtype((started_with or recipe).engine)  # a run keeps the dtype with which it began
    recipe = settled(recipe)
    tools = tools_of(recipe, cache_folder=Path(recipe.output_dir).expanduser() / "endpoints")
    model = read_shape(tools.models["policy"].path)
    work = count_work(recipe, tools)
    machine = measure_machine(engine_dtype=recipe.engine.dtype, training_dtype=recipe.training.weights_dtype)
    history = read_history(Path(recipe.output_dir).expanduser(), recipe)
    seconds, start = estimate(recipe, work, model=model, machine=machine, history=history)
    return Plan(
        recipe=recipe,
        dtype=chosen,
        model=model,
        machine=machine,
        iterations=work,
        seconds=seconds,
        start=start,
        history=history,
        memory=memory_of(recipe, work, model=model, machine=machine),
        disk=disk_of(recipe, work, model=model),
        warnings=(
            *warnings(recipe, tools, work, begun=started_with is not None),
            *beyond_budget(recipe, work),
            *history.warnings,
        ),
    )


def warnings(recipe: Recipe, tools: Tools, work: Sequence[IterationWork], *, begun: bool = False) -> list[str]:
    """Return what `selfreward run` would refuse or warn about, and the judge prompts that may not fit."""
    found = [
        p.text if p.is_warning else f"`selfreward run` would refuse it: {p.text}"
        for p in problems(recipe, tools, begun=begun)
    ]
    if num_unjudged := sum(iteration.num_unjudged for iteration in work):
        found.append(
            f"up to {num_unjudged:,} judge prompts may exceed the context of {tools.engine.context_tokens} tokens; "
            "such a judgment or comparison is unscored (too_long)"
        )
    return found
