"""Upper bounds on the work of each stage, counted on the run's real prompts with the model's own tokenizer.

Each iteration is composed as in a run, and the bounds of its steps are summed. Stages have the names under which a run
stores them, so a plan can be compared with a manifest.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

from selfreward.compose import compose
from selfreward.plan.amounts import Work, endpoint_work, engine_work, summed
from selfreward.recipe import Recipe
from selfreward.steps import Gate, Iteration, Probe, Stage, Update
from selfreward.tables import Table
from selfreward.tools import Tools
from selfreward.workload import Lengths, UpdateWork, total


@dataclass(frozen=True)
class IterationWork:
    """Iteration 0 is the evaluation of M_0, which trains nothing.

    `stages` is the engine's work; `outside_engine` the work of endpoints and reward models, by stage and model name.
    `optional` are the stages of probes that may not be due. `num_unjudged` requests may not fit into the context.
    """

    iteration: int
    stages: Mapping[str, Work]
    outside_engine: Mapping[str, Mapping[str, Work]] = field(default_factory=dict)
    update: UpdateWork = field(default_factory=UpdateWork)
    tables: Mapping[str, Table[Any]] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    num_unjudged: int = 0

    @property
    def num_requests(self) -> int:
        return sum(work.num_requests for work in self.stages.values())

    @property
    def num_tokens(self) -> int:
        return sum(work.num_tokens for work in self.stages.values())


def count_work(recipe: Recipe, tools: Tools) -> tuple[IterationWork, ...]:
    """Count iterations 0 to `iterations.max`. Probes at the end of the run are counted in the last iteration."""
    lengths = Lengths(tools.engine)
    last = recipe.iterations.max
    composed = (compose(recipe, t, (), tools) for t in range(last + 1))
    return tuple(_work_of(iteration, recipe, lengths, is_last=iteration.number == last) for iteration in composed)


def _work_of(iteration: Iteration, recipe: Recipe, lengths: Lengths, *, is_last: bool) -> IterationWork:
    in_engine: dict[str, Work] = {}
    outside_engine: dict[str, dict[str, Work]] = {}
    tables: dict[str, Table[Any]] = {}
    optional: set[str] = set()
    num_unjudged = 0
    for stage, is_sure in _due(iteration, is_last=is_last):
        calls, others, num_too_long = _split(stage, recipe, lengths)
        num_unjudged += num_too_long
        if calls:
            in_engine[stage.name] = summed(calls)
        if others:
            outside_engine[stage.name] = {name: summed(works) for name, works in others.items()}
        if calls or others:
            tables[stage.name] = stage.table
            optional |= set() if is_sure else {stage.name}
    update = total([update.max_work(lengths) for update in iteration.updates])
    return IterationWork(iteration.number, in_engine, outside_engine, update, tables, frozenset(optional), num_unjudged)


def _due(iteration: Iteration, *, is_last: bool) -> Iterator[tuple[Stage[Any], bool]]:
    """Yield the stages of an iteration, and whether each is certain to be made."""
    for step in iteration.steps:
        match step:
            case Stage():
                yield step, True
            case Probe() if is_last or step.when != "at_end":
                yield from ((stage, step.when == "in_order") for stage in step.stages)
            case Probe() | Gate() | Update():
                pass
            case _:
                assert_never(step)


def _split(stage: Stage[Any], recipe: Recipe, lengths: Lengths) -> tuple[list[Work], dict[str, list[Work]], int]:
    """Return a stage's work for the engine, for other models by name, and the number of requests that may not fit."""
    calls: list[Work] = []
    others: defaultdict[str, list[Work]] = defaultdict(list)
    num_too_long = 0
    for requests in stage.max_requests(lengths):
        if requests.by not in stage.queries:
            raise ValueError(
                f"{stage.name} counts requests to {requests.by}, which is not in its `queries`; add it there"
            )
        endpoint = recipe.endpoints.get(requests.by)
        if not requests.lengths or (endpoint and requests.num_cached == requests.times):
            continue
        if endpoint is not None:
            others[requests.by].append(endpoint_work(requests, endpoint))
            continue
        works, num_long = engine_work(requests, context=lengths.context_tokens)
        if requests.in_engine:
            calls += works
            num_too_long += num_long if requests.may_not_fit else 0
        else:
            others[requests.by] += works
    return calls, dict(others), num_too_long


def columns_of(iterations: Sequence[IterationWork]) -> dict[str, set[str]]:
    """Map each column to the stages summed in it, in the order of an iteration."""
    columns: dict[str, set[str]] = {}
    for work in sorted(iterations, key=lambda work: work.iteration == 0):
        for table in work.tables.values():
            columns.setdefault(table.column or table.name, set()).add(table.name)
    return columns
