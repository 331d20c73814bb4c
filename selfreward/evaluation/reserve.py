"""A second look, on prompts held back for it: M_t against M_{t-1} and the best, asked when a decision stays open."""

from typing import Any

from selfreward.evaluation.bench import Bench, Sides
from selfreward.evaluation.outcomes import rows
from selfreward.evaluation.preference import outcomes
from selfreward.evaluation.tables import (
    RESERVE,
    RESERVE_COMPARISONS,
    RESERVE_OUTCOMES,
    RESERVE_RESPONSES,
    RESERVE_RESPONSES_OF,
)  # fmt: skip
from selfreward.records import PromptOutcome, Response
from selfreward.roles import Roles
from selfreward.steps import Probe, Read, Reading, Stage, whole
from selfreward.workload import Workload


def reserve(bench: Bench, iteration: int) -> tuple[Probe, ...]:
    """Its outcomes alone; nothing without prompts. Who was asked in its own iteration is not asked again."""
    prompts, earlier = bench.source.reserve_prompts(), Read(RESERVE_RESPONSES, "earlier")
    if not prompts:
        return ()

    def is_asked(reading: Reading, role: str) -> bool:
        return role in _baselines(reading.roles) and not _was_asked(reading, role)

    def theirs(reading: Reading, role: str, shard: int | None) -> list[Response]:
        if _was_asked(reading, role):
            return bench.evaluated(reading, RESERVE_RESPONSES, prompts, reading.roles[role], shard)
        return list(reading.rows(RESERVE_RESPONSES_OF[role], shard=shard))

    def sides(reading: Reading, shard: int | None) -> Sides:
        own = list(reading.rows(RESERVE_RESPONSES, shard=shard))
        return Sides(own, {role: theirs(reading, role, shard) for role in _baselines(reading.roles)})

    def made(reading: Reading) -> list[PromptOutcome]:
        found, comparisons = sides(reading, None), list(reading.rows(RESERVE_COMPARISONS))
        made: list[PromptOutcome] = []
        for role, side in found.baselines.items():
            compared, against = outcomes(found.own, side, comparisons, found.against), reading.roles[role].iteration
            made += rows(compared, found.own, side, set="reserve", by="anchor", against=against)
        return made

    responses: list[Stage[Any]] = [bench.responses(RESERVE_RESPONSES, prompts, "trained")]
    for role in ("previous", "best") if iteration > 1 else ("previous",):
        due = lambda reading, role=role: is_asked(reading, role)  # noqa: E731
        responses.append(bench.responses(RESERVE_RESPONSES_OF[role], prompts, role, only_if=due, reads=(earlier,)))
    work = Workload(prompts, len(responses), bench.decoding.max_tokens, iteration)
    reads = (*(Read(stage.table) for stage in responses), earlier)
    stages = (*responses, bench.comparisons(RESERVE_COMPARISONS, prompts, sides, reads=reads, work=work))
    return (
        Probe(RESERVE, (*stages, Stage(RESERVE_OUTCOMES, made, reads=whole(stages), num_shards=1)), when="on_request"),
    )


def _baselines(roles: Roles) -> list[str]:
    return ["previous"] if roles["best"].iteration == roles["previous"].iteration else ["previous", "best"]


def _was_asked(reading: Reading, role: str) -> bool:
    return reading.has(RESERVE_RESPONSES, iteration=reading.roles[role].iteration)
