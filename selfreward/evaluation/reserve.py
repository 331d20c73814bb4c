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
)
from selfreward.records import PromptOutcome, Response
from selfreward.roles import Roles
from selfreward.steps import Probe, Read, Reading, Stage
from selfreward.workload import Workload


def reserve(bench: Bench, iteration: int) -> tuple[Probe, ...]:
    """Its outcomes alone; nothing without prompts. Who was asked in its own iteration is not asked again."""
    prompts = bench.source.reserve_prompts()
    if not prompts:
        return ()

    def sides(reading: Reading, shard: int | None) -> Sides:
        def responses(role: str) -> list[Response]:
            if _was_asked(reading, role):
                return bench.evaluated(reading, RESERVE_RESPONSES, prompts, reading.roles[role], shard)
            return list(reading.rows(RESERVE_RESPONSES_OF[role], shard=shard))

        own = list(reading.rows(RESERVE_RESPONSES, shard=shard))
        return Sides(own, {role: responses(role) for role in _baselines(reading.roles)})

    def made(reading: Reading) -> list[PromptOutcome]:
        found, comparisons = sides(reading, None), list(reading.rows(RESERVE_COMPARISONS))
        against = list(found.baselines.values())
        return [
            row
            for role, side in found.baselines.items()
            for row in rows(
                outcomes(found.own, side, comparisons, against), found.own, side,
                set="reserve", by="anchor", against=reading.roles[role].iteration,
            )
        ]  # fmt: skip

    def of_baseline(role: str) -> Stage[Response]:
        return bench.responses(
            RESERVE_RESPONSES_OF[role], prompts, role,
            only_if=lambda reading: role in _baselines(reading.roles) and not _was_asked(reading, role),
        )  # fmt: skip

    own = bench.responses(RESERVE_RESPONSES, prompts, "trained")
    theirs = [of_baseline(role) for role in RESERVE_RESPONSES_OF if role == "previous" or iteration > 1]
    earlier = Read(RESERVE_RESPONSES, "earlier")
    work = Workload(prompts, 1 + len(theirs), bench.decoding.max_tokens, iteration)
    compared = bench.comparisons(
        RESERVE_COMPARISONS, prompts, sides, reads=(earlier, *(Read(s.table) for s in (own, *theirs))), work=work
    )
    stages: tuple[Stage[Any], ...] = (own, *theirs, compared)
    reads = (earlier, *(Read(stage.table, "iteration") for stage in stages))
    made_last = Stage(RESERVE_OUTCOMES, made, reads=reads, num_shards=1)
    return (Probe(RESERVE, (*stages, made_last), when="on_request"),)


def _baselines(roles: Roles) -> list[str]:
    return ["previous"] if roles["best"].iteration == roles["previous"].iteration else ["previous", "best"]


def _was_asked(reading: Reading, role: str) -> bool:
    return reading.has(RESERVE_RESPONSES, iteration=reading.roles[role].iteration)
