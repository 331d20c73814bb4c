"""The plan as text for a terminal."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from selfreward.evaluation import evaluator as held_out
from selfreward.plan import seconds as time_of
from selfreward.plan.seconds import Seconds
from selfreward.plan.storage import engine_kind
from selfreward.plan.work import JUDGMENTS, RESPONSES, IterationWork, Work

if TYPE_CHECKING:
    from selfreward.plan import Plan

# Column, and the stages that are added up in it.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "responses": (RESPONSES,),
    "judgments": (JUDGMENTS,),
    "eval: responses": (held_out.RESPONSES,),
    "verifiable": (held_out.VERIFIABLE_RESPONSES,),
    "comparisons": (held_out.COMPARISONS,),
    "KL": (held_out.KL_RESPONSES, *(f"{held_out.LOGPROBS}_{name}" for name in ("policy", "previous", "initial"))),
}
GIB = 2**30
WIDTH = 100


def render(plan: "Plan") -> str:
    """All of the plan, in lines of at most a hundred characters; a table may be wider."""
    recipe, model = plan.recipe, plan.model
    parts = [
        _prose(
            f"plan of {recipe.name}: {_count(recipe.iterations.max, 'iteration')} of "
            f"{_count(recipe.iterations.num_prompts_per_iteration, 'prompt')}, a model of "
            f"{model.num_parameters / 1e6:,.1f} M parameters, engine {engine_kind(recipe)} in {recipe.engine.dtype}"
        ),
        _prose(
            "Counts are upper bounds, reached when every response is as long as allowed, every one is judged, no two "
            "texts are equal and every prompt gives a pair. A prompt counts once for each request, whatever its number "
            "of draws; a response in a judge's prompt counts what was sampled, which broken text may exceed."
        ),
        "\n".join(_prose(f"warning: {warning}") for warning in plan.warnings),
        _table("engine requests", plan.iterations, lambda work: work.num_requests),
        _table("engine tokens, prompt and generated", plan.iterations, lambda work: work.num_tokens),
        _training_table(plan),
        _used(plan),
        _memory(plan),
        _disk(plan),
        _time(plan),
        _resolution(plan),
    ]
    return "\n\n".join(filter(None, parts))


def _table(title: str, iterations: Sequence[IterationWork], amount: Callable[[Work], int]) -> str:
    rows = [["", *COLUMNS, "total"]]
    sums = [0] * (len(COLUMNS) + 1)
    for iteration in iterations:
        cells = [
            sum(amount(iteration.stages[s]) for s in stages if s in iteration.stages) for stages in COLUMNS.values()
        ]
        cells.append(sum(cells))
        sums = [a + b for a, b in zip(sums, cells, strict=True)]
        rows.append([_row_name(iteration.iteration), *(f"{cell:,}" if cell else "-" for cell in cells)])
    rows.append(["whole run", *(f"{total:,}" if total else "-" for total in sums)])
    return f"{title}\n{_aligned(rows)}"


def _training_table(plan: "Plan") -> str:
    rows = [["", "pairs", "optimizer steps", "tokens", "time of the iteration"]]
    for work, seconds in zip(plan.iterations, plan.seconds, strict=True):
        counts = (work.num_pairs, work.num_steps, work.num_training_tokens)
        name = _row_name(work.iteration)
        rows.append([name, *(f"{n:,}" if n else "-" for n in counts), _range(seconds)])
    trained = [(w.num_pairs, w.num_steps, w.num_training_tokens) for w in plan.iterations]
    rows.append(["whole run", *(f"{sum(column):,}" for column in zip(*trained, strict=True)), _range(_total(plan))])
    return f"training\n{_aligned(rows)}"


def _used(plan: "Plan") -> str:
    """What finished stages really used of their bound: what to expect of the rest."""
    planned = used = 0.0
    for work in plan.iterations:
        for name in work.stages.keys() & plan.history.seconds.get(work.iteration, {}).keys():
            counters = plan.history.usage.get(work.iteration, {}).get(name, {})  # none: it asked nothing
            planned += work.stages[name].num_tokens
            used += counters.get("num_prompt_tokens", 0) + counters.get("num_generated_tokens", 0)
    if not planned:
        return ""
    return f"So far this run used {used / planned:.0%} of the tokens that its finished stages were allowed."


def _memory(plan: "Plan") -> str:
    memory, training = plan.memory, plan.recipe.training
    together = "both at once, in the same memory" if memory.shared else "one at a time, the engine sleeps meanwhile"
    states = "weights" if plan.recipe.models["policy"].lora else "weights, gradients, Adam's two moments"
    return _entry(
        "memory",
        f"{_gib(memory.peak)} of {_gib(memory.available)}, {together}: engine {_gib(memory.engine_weights)} weights "
        f"and {_gib(memory.engine_kv_cache)} KV cache; trainer {_gib(memory.trainer_states)} ({states} in "
        f"{training.weights_dtype}) and up to {_gib(memory.trainer_logits)} logits of a micro-batch. Left out: "
        "activations, which grow with training.micro_batch_tokens; libraries and their "
        "workspaces, 1 to 3 GiB.",
    )


def _disk(plan: "Plan") -> str:
    disk, keep = plan.disk, plan.recipe.checkpoints.keep
    rule = "all, checkpoints.keep is null" if keep is None else f"the newest {keep} and the best one"
    saves = f"; while training, up to 2 saves of {_gib(disk.save)}" if disk.save else ""
    return _entry(
        "disk",
        f"{_gib(disk.peak)} at the peak, {_gib(disk.free)} are free: checkpoints of {_gib(disk.checkpoint)}, of which "
        f"at most {disk.num_kept} stay ({rule}){saves}. Left out: records and reports, megabytes.",
    )


def _time(plan: "Plan") -> str:
    machine, total = plan.machine, _total(plan)
    if total.real == total.high:
        return _entry("time", f"{_range(total)}: everything has run.")
    spent = f", {_duration(total.real)} of it already spent" if total.real else ""
    vllm = engine_kind(plan.recipe) == "vllm"
    cache = "; the prefix cache saves everything that it can, or nothing" if vllm else ""
    rates = " Finished stages give the rates of later ones; the rest is from what follows." if total.real else ""
    return _entry(
        "time",
        f"{_range(total)} for the whole run{spent}: an estimate.{rates} Measured now on {machine.name}: "
        f"{machine.engine_flops / 1e9:,.0f} GFLOP/s in {plan.recipe.engine.dtype} for the engine, "
        f"{machine.training_flops / 1e9:,.0f} GFLOP/s for training, {machine.copied_bytes_per_s / 1e9:,.1f} GB/s of "
        f"memory. Assumed: {_share(time_of.PREFILL_SHARE)} of the matrix rate are reached in prefill, "
        f"{_share(time_of.DECODE_SHARE)} of the memory or matrix rate, whichever is slower, in decoding, "
        f"{_share(time_of.TRAINING_SHARE)} of the matrix rate in training; responses take "
        f"{_share(time_of.GENERATED_SHARE)} of what is allowed; the engine starts in {_range(plan.start)}; no other "
        f"load{cache}.",
    )


def _resolution(plan: "Plan") -> str:
    gain, num_prompts = plan.resolvable_gain, plan.recipe.evaluation.num_prompts
    return _entry(
        "resolves",
        f"a true win rate of {0.5 + gain:.2f} from 0.50 with {_count(num_prompts, 'monitor prompt')}: found in 80 % of "
        f"runs, a smaller gain less often (+{gain:.3f} = (1.96 + 0.84) sqrt((1 - ties) / 4 / n): 95 % interval, 80 % "
        "power, 40 % ties; 2411.00640).",
    )


def _total(plan: "Plan") -> Seconds:
    return sum(plan.seconds, plan.start)


def _row_name(iteration: int) -> str:
    return f"iteration {iteration}" if iteration else "the given model"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    )


def _prose(text: str, *, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _entry(name: str, text: str) -> str:
    return _prose(f"{name:10}{text}", indent=" " * 10)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _gib(num_bytes: float) -> str:
    gib = num_bytes / GIB
    return f"{gib:,.0f} GiB" if gib >= 100 else f"{gib:,.1f} GiB" if gib >= 1 else f"{num_bytes / 2**20:,.0f} MiB"


def _share(share: time_of.Assumption) -> str:
    low, high = sorted((share.fast, share.slow))
    return f"{low:.0%} to {high:.0%}"


def _range(seconds: Seconds) -> str:
    low, high = _duration(seconds.low), _duration(seconds.high)
    return low if low == high else f"{low} to {high}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:,.1f} h"
