"""A second look, on prompts held back for it: M_t against M_{t-1} and the best, asked when a decision stays open."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from selfreward.records import Prompt, PromptOutcome, Response
from selfreward.roles import Roles
from selfreward.steps import Probe, Read, Reading, Stage, whole
from selfreward.workload import Workload

EARLIER = Read(RESERVE_RESPONSES, "earlier")


def reserve(bench: Bench, iteration: int) -> tuple[Probe, ...]:
    """Its outcomes alone; nothing without prompts. Who was asked in its own iteration is not asked again."""
    prompts = bench.source.reserve_prompts()
    return (_Reserve(bench, prompts).probe(iteration),) if prompts else ()


@dataclass(frozen=True)
class _Reserve:
    bench: Bench
    prompts: Sequence[Prompt]

    def probe(self, iteration: int) -> Probe:
        baselines = ("previous", "best") if iteration > 1 else ("previous",)
        own = self.bench.responses(RESERVE_RESPONSES, self.prompts, "trained")
        responses = (own, *map(self._responses, baselines))
        work = Workload(self.prompts, len(responses), self.bench.decoding.max_tokens, iteration)
        reads = (*(Read(stage.table) for stage in responses), EARLIER)
        compared = self.bench.comparisons(RESERVE_COMPARISONS, self.prompts, self._sides, reads=reads, work=work)
        stages: tuple[Stage[Any], ...] = (*responses, compared)
        made = Stage(RESERVE_OUTCOMES, self._outcomes, reads=whole(stages), num_shards=1)
        return Probe(RESERVE, (*stages, made), when="on_request")

    def _responses(self, role: str) -> Stage[Response]:
        due = partial(_is_asked, role)
        return self.bench.responses(RESERVE_RESPONSES_OF[role], self.prompts, role, only_if=due, reads=(EARLIER,))

    def _sides(self, reading: Reading, shard: int | None) -> Sides:
        own = list(reading.rows(RESERVE_RESPONSES, shard=shard))
        return Sides(own, {role: self._theirs(reading, role, shard) for role in _baselines(reading.roles)})

    def _theirs(self, reading: Reading, role: str, shard: int | None) -> list[Response]:
        if _was_asked(reading, role):
            return self.bench.evaluated(reading, RESERVE_RESPONSES, self.prompts, reading.roles[role], shard)
        return list(reading.rows(RESERVE_RESPONSES_OF[role], shard=shard))

    def _outcomes(self, reading: Reading) -> list[PromptOutcome]:
        found, comparisons = self._sides(reading, None), list(reading.rows(RESERVE_COMPARISONS))
        made: list[PromptOutcome] = []
        for role, side in found.baselines.items():
            compared, against = outcomes(found.own, side, comparisons, found.against), reading.roles[role].iteration
            made += rows(compared, found.own, side, set="reserve", by="anchor", against=against)
        return made


def _baselines(roles: Roles) -> list[str]:
    return ["previous"] if roles["best"].iteration == roles["previous"].iteration else ["previous", "best"]


def _is_asked(role: str, reading: Reading) -> bool:
    return role in _baselines(reading.roles) and not _was_asked(reading, role)


def _was_asked(reading: Reading, role: str) -> bool:
    return reading.has(RESERVE_RESPONSES, iteration=reading.roles[role].iteration)
