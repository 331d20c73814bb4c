"""The plan as text for a terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from selfreward.plan import measuring
from selfreward.plan import seconds as time_of
from selfreward.plan.amounts import Work
from selfreward.plan.endpoints import cost, money, work_outside_engine
from selfreward.plan.gpu_hours import gpu_hours
from selfreward.plan.layout import aligned, count, duration, entry, prose, time_range
from selfreward.plan.machine import Machine
from selfreward.plan.memory import engine_kind
from selfreward.plan.planning import Plan
from selfreward.plan.seconds import Seconds
from selfreward.plan.work import IterationWork, columns_of
from selfreward.recipe import EndpointSection

GIB = 2**30


def render(plan: Plan, *, price: float | None = None) -> str:
    """Return the plan in lines of at most 100 characters; tables may be wider. `price` is that of a GPU's hour."""
    recipe, model = plan.recipe, plan.model
    parts = [
        prose(
            f"plan of {recipe.name}: {count(recipe.iterations.max, 'iteration')} of "
            f"{count(recipe.iterations.num_prompts_per_iteration, 'prompt')}, a model of "
            f"{model.num_parameters / 1e6:,.1f} M parameters, engine {engine_kind(recipe)} in "
            f"{recipe.engine.dtype} ({plan.dtype.reason})"
        ),
        prose(
            "Counts are upper bounds, reached when every response has the maximum length, every response is judged, no "
            "two texts are equal and every prompt gives a pair. A prompt counts once per request, regardless of its "
            "number of samples; a response in a judge's prompt counts its sampled tokens, which malformed text may "
            "exceed."
        ),
        "\n".join(prose(f"warning: {warning}") for warning in plan.warnings),
        _table("engine requests", plan.iterations, lambda work: work.num_requests),
        _table("engine tokens, prompt and generated", plan.iterations, lambda work: work.num_tokens),
        _notes(plan),
        _training_table(plan),
        _used(plan),
        _outside_engine(plan),
        _memory(plan),
        _disk(plan),
        _time(plan),
        gpu_hours(plan, price) if plan.machine.device == "cuda" else "",
        measuring.share(plan.iterations, preset=recipe.evaluation.preset),
        measuring.sizes(recipe),
        measuring.resolution(recipe),
    ]
    return "\n\n".join(filter(None, parts))


def _table(title: str, iterations: Sequence[IterationWork], amount: Callable[[Work], int]) -> str:
    found = {
        column: [sum(amount(i.stages[stage]) for stage in stages if stage in i.stages) for i in iterations]
        for column, stages in columns_of(iterations).items()
    }
    found = {column: cells for column, cells in found.items() if any(cells)}
    return _counts(title, [_row_name(i.iteration) for i in iterations], {**found, "total": _sums(found.values())})


def _training_table(plan: Plan) -> str:
    found = {
        "pairs": [work.update.num_pairs for work in plan.iterations],
        "of judgments": [work.update.num_judgment_pairs for work in plan.iterations],
        "optimizer steps": [work.update.num_steps for work in plan.iterations],
        "tokens": [work.update.num_training_tokens for work in plan.iterations],
    }
    if not any(found["of judgments"]):
        del found["of judgments"]
    times = [time_range(seconds) for seconds in (*plan.seconds, _total(plan))]
    names = [_row_name(work.iteration) for work in plan.iterations]
    return _counts("training", names, found, more={"time of the iteration": times})


def _counts(
    title: str,
    names: Sequence[str],
    columns: Mapping[str, Sequence[int]],
    more: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return a table of counts with their sum in the last row. `more` are columns of text that include this row."""
    cells = {name: [f"{n:,}" if n else "-" for n in (*column, sum(column))] for name, column in columns.items()}
    cells |= {name: [*column] for name, column in (more or {}).items()}
    rows = [["", *cells], *map(list, zip([*names, "complete run"], *cells.values(), strict=True))]
    return f"{title}\n{aligned(rows)}"


def _sums(columns: Iterable[Sequence[int]]) -> list[int]:
    return [sum(row) for row in zip(*columns, strict=True)]


def _notes(plan: Plan) -> str:
    """Return explanations of the columns."""
    notes: dict[str, list[str]] = {}
    for work in sorted(plan.iterations, key=lambda work: work.iteration == 0):
        for table in work.tables.values():
            texts = notes.setdefault(table.column or table.name, [])
            if table.note and table.note not in texts:
                texts.append(table.note)
    return prose(" ".join(f"{column}: {'; '.join(texts)}." for column, texts in notes.items() if texts))


def _outside_engine(plan: Plan) -> str:
    return "\n\n".join(
        _endpoint(name, plan.recipe.endpoints[name], work)
        if name in plan.recipe.endpoints
        else entry(
            "outside",
            f"{name}, a reward model, scores up to {count(work.num_requests, 'response')} of "
            f"{count(work.num_prompt_tokens, 'token')} (by the policy's tokenizer) in the complete run, outside the "
            "engine: it is not included in the tables, memory and time.",
        )
        for name, work in work_outside_engine(plan.iterations).items()
    )


def _endpoint(name: str, section: EndpointSection, work: Work) -> str:
    num_once = work.num_prompt_tokens - work.num_repeated_tokens
    most, least = (
        cost(section, num_prompt=num_prompt, num_generated=work.num_generated_tokens)
        for num_prompt in (work.num_prompt_tokens, num_once)
    )
    text = (
        f"{name}: up to {count(work.num_requests, 'request')}, {work.num_prompt_tokens:,} prompt and "
        f"{work.num_generated_tokens:,} generated tokens in the complete run"
    )
    text += ", no price is given" if most is None else f", which cost at most {money(most)}"
    text += "." if section.budget is None else f"; the budget is {section.budget:g}."
    if work.num_repeated_tokens:
        text += f" A server that returns all samples of a request at once processes {num_once:,} prompt tokens"
        text += "." if least is None else f" ({money(least)} in total)."
    if not work.num_generated_tokens:
        text += " extra_body removes the limit of its replies: their tokens are not counted."
    return entry(
        "endpoint",
        f"{text} Counted with the policy's tokenizer; the server's tokenizer may give more or fewer tokens. Failed "
        "attempts may also be charged. Its requests are not in the tables, and its time is not included.",
    )


def _used(plan: Plan) -> str:
    """Return the share of their upper bound that finished stages used, as a guide for the rest."""
    planned = used = 0.0
    for work in plan.iterations:
        # Endpoints use the same counters, so stages that query them are left out.
        known = work.stages.keys() - work.outside_engine.keys()
        for name in known & plan.history.seconds.get(work.iteration, {}).keys():
            counters = plan.history.usage.get(work.iteration, {}).get(name, {})  # none: the stage made no request
            planned += work.stages[name].num_tokens
            used += counters.get("num_prompt_tokens", 0) + counters.get("num_generated_tokens", 0)
    if not planned:
        return ""
    return f"So far this run used {used / planned:.0%} of the upper bound on tokens of its finished stages."


_STATES = {
    "adamw": "Adam's moments",
    "adamw_8bit": "Adam's moments in 8 bits",
    "adamw_offload": "Adam's moments (in host memory if need be)",
    "adafactor": "Adafactor's state",
}


def _memory(plan: Plan) -> str:
    memory = plan.memory
    together = "engine and trainer share the memory" if memory.shared else "engine and trainer take turns"
    together += " on each GPU" if plan.machine.count > 1 else ""
    return entry(
        "memory",
        f"{_gib(memory.peak)} of {_gib(memory.available)}, {together}: engine {_gib(memory.engine_weights)} weights "
        f"and {_gib(memory.engine_kv_cache)} KV cache; {_trainer(plan)}. Not included: libraries and their workspaces, "
        "1 to 3 GiB.",
    )


def _trainer(plan: Plan) -> str:
    memory, recipe = plan.memory, plan.recipe
    found = memory.training
    if found is None:
        return "trainer unknown: the activations of this model cannot be counted"
    section = recipe.training
    shards = " of a shard" if recipe.launch.is_sharded else ""
    parts = [
        f"{_gib(found.weights)} weights",
        f"{_gib(found.gradients)} gradients",
        f"{_gib(found.states)} {_STATES[section.optimizer]}",
        *([f"{_gib(found.copies)} copies of weights in 16 bits"] if found.copies else []),
    ]
    tokens = memory.micro_batch_tokens
    peak = found.peak(*memory.micro_batch)
    activations = peak - found.fixed
    processes = f" in each of {memory.num_trainers} processes" if memory.num_trainers > 1 else ""
    how = " (training.micro_batch_tokens: auto)" if section.micro_batch_tokens == "auto" else ""
    return (
        f"trainer {_gib(peak)}{processes}: {', '.join(parts)}{shards}, and {_gib(activations)} "
        f"activations and logits of a micro-batch of {tokens:,} tokens{how}"
    )


def _disk(plan: Plan) -> str:
    disk, keep = plan.disk, plan.recipe.checkpoints.keep
    rule = "all, checkpoints.keep is null" if keep is None else f"the newest {keep} and the best one"
    saves = f"; while training, up to 2 saves of {_gib(disk.save)}" if disk.save else ""
    return entry(
        "disk",
        f"{_gib(disk.peak)} at the peak, {_gib(disk.free)} are free: checkpoints of {_gib(disk.checkpoint)}, of which "
        f"at most {disk.num_kept} stay ({rule}){saves}. Not included: records and reports, a few megabytes.",
    )


def _time(plan: Plan) -> str:
    machine, total = plan.machine, _total(plan)
    if total.real == total.high:
        return entry("time", f"{time_range(total)}: the run is finished.")
    spent = f", {duration(total.real)} of it already spent" if total.real else ""
    vllm = engine_kind(plan.recipe) == "vllm"
    cache = "; the prefix cache saves between nothing and all shared prefixes" if vllm else ""
    rates = " Finished stages give the rates of later ones; the rest uses the following rates." if total.real else ""
    return entry(
        "time",
        f"{time_range(total)} for the complete run{spent}: an estimate.{rates} {_source(machine)}: "
        f"{machine.engine_flops / 1e9:,.0f} GFLOP/s in {plan.recipe.engine.dtype} for the engine, "
        f"{machine.training_flops / 1e9:,.0f} GFLOP/s for training, {machine.copied_bytes_per_s / 1e9:,.1f} GB/s of "
        f"memory bandwidth. Assumptions: prefill reaches {_share(time_of.PREFILL_SHARE)} of the matrix rate, "
        f"decoding {_share(time_of.DECODE_SHARE)} of the memory or matrix rate, whichever is slower, "
        f"training {_share(time_of.TRAINING_SHARE)} of the matrix rate; responses use "
        f"{_share(time_of.GENERATED_SHARE)} of their maximum length; the engine starts in {time_range(plan.start)}; no "
        f"other load{cache}.",
    )


def _source(machine: Machine) -> str:
    if machine.is_measured:
        return f"Measured now on {machine.name}"
    return f"From the peak figures of {machine.name}, never measured here"


def _total(plan: Plan) -> Seconds:
    return sum(plan.seconds, plan.start)


def _row_name(iteration: int) -> str:
    return f"iteration {iteration}" if iteration else "the initial model"


def _gib(num_bytes: float) -> str:
    gib = num_bytes / GIB
    return f"{gib:,.0f} GiB" if gib >= 100 else f"{gib:,.1f} GiB" if gib >= 1 else f"{num_bytes / 2**20:,.0f} MiB"


def _share(share: time_of.Assumption) -> str:
    low, high = sorted((share.fast, share.slow))
    return f"{low:.0%} to {high:.0%}"
