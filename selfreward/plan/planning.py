"""The cost of a run, before it runs: engine requests and tokens, training, memory, disk, time.

The counts are upper bounds on the run's real prompts, measured with the model's own tokenizer: every response has the
maximum length, every response is judged, every prompt gives a pair. The time is an estimated range; for a started run,
its measured rates replace the estimate. No weights are loaded, and no endpoint is queried.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.begun import run_folder
from selfreward.dtypes import EngineDtype, engine_dtype, with_dtype
from selfreward.errors import RecipeError
from selfreward.model_files.estimated import has_tokenizer
from selfreward.model_files.planning import has_weights
from selfreward.plan.cluster import Cluster, cluster_of, with_processes
from selfreward.plan.endpoints import beyond_budget
from selfreward.plan.gpus import machine_of
from selfreward.plan.history import History, read_history, started_recipe
from selfreward.plan.machine import Machine, measure_machine
from selfreward.plan.memory import Memory, memory_of, update_memory
from selfreward.plan.model_shape import ModelShape, read_shape
from selfreward.plan.seconds import Seconds, by_stage, estimate
from selfreward.plan.storage import Disk, disk_of
from selfreward.plan.work import IterationWork, count_work
from selfreward.recipe import LaunchSection, Recipe
from selfreward.settled import settled
from selfreward.tools import Tools, problems, tools_of


@dataclass(frozen=True)
class Plan:
    """`iterations` starts with the evaluation of M_0; `seconds` has one entry for each iteration, `stages` by stage.

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
    stages: tuple[Mapping[str, Seconds], ...] = ()

    @property
    def cluster(self) -> Cluster:
        return cluster_of(self.recipe, self.machine)


def plan(recipe: Recipe, *, gpu: str | None = None, num_gpus: int | None = None, num_nodes: int | None = None) -> Plan:
    """Count the work of a recipe, and measure this machine for about a second. Raises RecipeError as a run would.

    `gpu` names other devices (`gpus.py`), of which only peak figures are known. With `num_gpus` or `num_nodes` the
    recipe is planned as if `launch` named all of them. Of the models only the configuration must be here; weights are
    never downloaded.
    """
    if gpu is None and (num_gpus or num_nodes):
        raise RecipeError("--gpus and --nodes need the kind of GPU; add it, as in --gpu H100 --gpus 64 --nodes 8")
    folder = run_folder(recipe)
    started_with = started_recipe(folder) if gpu is None else None
    if gpu is None:
        chosen = engine_dtype((started_with or recipe).engine)  # a run keeps the dtype with which it began
    else:
        chosen = _dtype_on_gpu(recipe)
        recipe = with_dtype(recipe, chosen.name)
    recipe = settled(recipe)
    tools = tools_of(recipe, cache_folder=folder / "endpoints", is_plan=True)
    model = read_shape(tools.models["policy"].path, trust_remote_code=recipe.policy.trust_remote_code)
    work = count_work(recipe, tools)
    # Whether a number of processes can start says nothing of this machine when another one is planned.
    checked = recipe if gpu is None else recipe.model_copy(update={"launch": LaunchSection()})
    found = [*warnings(checked, tools, work, begun=started_with is not None), *_estimated(recipe, tools)]
    if gpu is None:
        machine = measure_machine(engine_dtype=recipe.engine.dtype, training_dtype=recipe.training.weights_dtype)
        history = read_history(folder, recipe)
    else:
        machine = machine_of(gpu, engine_dtype=recipe.engine.dtype, num_gpus=num_gpus, num_nodes=num_nodes or 1)
        history = History()
        recipe = _with_engine(recipe)
        recipe = _on_all(recipe, machine) if num_gpus or num_nodes else recipe
    disk = disk_of(recipe, work, model=model)
    if gpu is None:  # another machine has other disks
        found += _of_disk(disk)
    training = update_memory(recipe, tools.models["policy"].path, machine=machine)
    memory = memory_of(recipe, work, model=model, machine=machine, training=training)
    sizes: dict[str, Any] = {
        "model": model,
        "machine": machine,
        "history": history,
        "micro_batch_tokens": memory.micro_batch_tokens,
    }
    seconds, start = estimate(recipe, work, **sizes)
    return Plan(
        recipe=recipe,
        dtype=chosen,
        model=model,
        machine=machine,
        iterations=work,
        seconds=seconds,
        stages=by_stage(recipe, work, **sizes),
        start=start,
        history=history,
        memory=memory,
        disk=disk,
        warnings=(*found, *_of_machine(recipe, machine, memory), *beyond_budget(recipe, work), *history.warnings),
    )


def _dtype_on_gpu(recipe: Recipe) -> EngineDtype:
    chosen = recipe.engine.dtype
    return EngineDtype("bfloat16", "as auto is on this GPU") if chosen == "auto" else engine_dtype(recipe.engine)


def _with_engine(recipe: Recipe) -> Recipe:
    """Return the recipe with vLLM as its engine where this machine's packages would decide."""
    if recipe.engine.kind != "auto":
        return recipe
    return recipe.model_copy(update={"engine": recipe.engine.model_copy(update={"kind": "vllm"})})


def _on_all(recipe: Recipe, machine: Machine) -> Recipe:
    """Return the recipe with training on all GPUs of a machine."""
    return recipe.model_copy(update={"launch": with_processes(recipe.launch, machine, machine.count)})


def _estimated(recipe: Recipe, tools: Tools) -> Iterator[str]:
    """Yield what is estimated because files of the models are not here."""
    for name in recipe.local_models:
        folder = tools.models[name].path
        if not has_weights(folder):
            yield f"models.{name}: its weights are not in {folder}; its size is that of its config.json"
        if not has_tokenizer(folder):
            yield (
                f"models.{name}: it has no tokenizer in {folder}; all lengths are estimated from the characters of the "
                "texts, as in English, and chat templates and special tokens are not checked"
            )


def _of_machine(recipe: Recipe, machine: Machine, memory: Memory) -> Iterator[str]:
    """Yield what a named GPU has too much or too little of."""
    if machine.is_measured:
        return
    if (used := recipe.launch.num_processes) != machine.count:
        yield (
            f"launch has {used} processes: training uses {min(used, machine.count)} of {machine.count} GPUs"
            + (f", and cannot start {used} processes on them" if used > machine.count else "")
        )
    if (pairs := recipe.training.batch_size) < min(used, machine.count):
        yield (
            f"training.batch_size: a step of {pairs} pairs keeps at most {pairs} of {min(used, machine.count)} GPUs "
            "busy; raise it, which changes the training, or train on fewer"
        )
    if machine.count % recipe.engine.tensor_parallel_size:
        yield (
            f"engine.tensor_parallel_size: {machine.count} GPUs are no multiple of "
            f"{recipe.engine.tensor_parallel_size}; some generate nothing"
        )
    if memory.peak > memory.available:
        yield (
            "the memory of a GPU is too small for "
            + ("the engine: raise engine.tensor_parallel_size" if memory.engine > memory.available else "the update")
            + "; an update needs less with training.gradient_checkpointing, models.policy.lora, training.optimizer "
            "adamw_8bit, adamw_offload or adafactor, training.weights_dtype bfloat16, or launch.sharding fsdp on "
            "several GPUs; a longest pair of "
            f"{memory.micro_batch_tokens:,} tokens with a lower sampling.max_tokens"
        )


def _of_disk(disk: Disk) -> Iterator[str]:
    if disk.peak > disk.free:
        yield (
            f"the run may fill the disk: it needs {disk.peak / 2**30:.1f} GiB at the peak, and {disk.free / 2**30:.1f} "
            "GiB are free; lower checkpoints.keep, or set an output_dir on another disk"
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
