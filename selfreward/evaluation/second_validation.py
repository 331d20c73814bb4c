"""The second interim analysis: M_t against M_{t-1} and the best, after an inconclusive decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from selfreward.evaluation.evaluator import Evaluator, Sides
from selfreward.evaluation.outcomes import rows
from selfreward.evaluation.preference import outcomes
from selfreward.evaluation.tables import (
    SECOND_VALIDATION,
    SECOND_VALIDATION_COMPARISONS,
    SECOND_VALIDATION_OUTCOMES,
    SECOND_VALIDATION_RESPONSES,
    SECOND_VALIDATION_RESPONSES_OF,
)  # fmt: skip
from selfreward.records import Prompt, PromptOutcome, Response
from selfreward.roles import Roles
from selfreward.steps import Probe, Read, Reading, Stage, complete_tables
from selfreward.workload import Workload

EARLIER = Read(SECOND_VALIDATION_RESPONSES, "earlier")


def second_validation(evaluator: Evaluator, iteration: int) -> tuple[Probe, ...]:
    """Return the measurement of the second validation outcomes, if there are prompts for it.

    A checkpoint that already responded in its own iteration is not sampled again.
    """
    prompts = evaluator.source.second_validation_prompts()
    return (_SecondValidation(evaluator, prompts).probe(iteration),) if prompts else ()


@dataclass(frozen=True)
class _SecondValidation:
    evaluator: Evaluator
    prompts: Sequence[Prompt]

    def probe(self, iteration: int) -> Probe:
        baselines = ("previous", "best") if iteration > 1 else ("previous",)
        own = self.evaluator.responses(SECOND_VALIDATION_RESPONSES, self.prompts, "trained")
        responses = (own, *map(self._responses, baselines))
        work = Workload(self.prompts, len(responses), self.evaluator.decoding.max_tokens, iteration)
        reads = (*(Read(stage.table) for stage in responses), EARLIER)
        compared = self.evaluator.comparisons(
            SECOND_VALIDATION_COMPARISONS, self.prompts, self._sides, reads=reads, work=work
        )
        stages: tuple[Stage[Any], ...] = (*responses, compared)
        made = Stage(SECOND_VALIDATION_OUTCOMES, self._outcomes, reads=complete_tables(stages), num_shards=1)
        return Probe(SECOND_VALIDATION, (*stages, made), when="on_request")

    def _responses(self, role: str) -> Stage[Response]:
        due = partial(_is_due, role)
        return self.evaluator.responses(
            SECOND_VALIDATION_RESPONSES_OF[role], self.prompts, role, only_if=due, reads=(EARLIER,)
        )

    def _sides(self, reading: Reading, shard: int | None) -> Sides:
        own = list(reading.rows(SECOND_VALIDATION_RESPONSES, shard=shard))
        return Sides(own, {role: self._theirs(reading, role, shard) for role in _baselines(reading.roles)})

    def _theirs(self, reading: Reading, role: str, shard: int | None) -> list[Response]:
        if _was_evaluated(reading, role):
            return self.evaluator.evaluated(
                reading, SECOND_VALIDATION_RESPONSES, self.prompts, reading.roles[role], shard
            )
        return list(reading.rows(SECOND_VALIDATION_RESPONSES_OF[role], shard=shard))

    def _outcomes(self, reading: Reading) -> list[PromptOutcome]:
        found, comparisons = self._sides(reading, None), list(reading.rows(SECOND_VALIDATION_COMPARISONS))
        made: list[PromptOutcome] = []
        for role, side in found.baselines.items():
            compared, against = outcomes(found.own, side, comparisons, found.against), reading.roles[role].iteration
            made += rows(compared, found.own, side, set="second_validation", by="anchor", against=against)
        return made


def _baselines(roles: Roles) -> list[str]:
    return ["previous"] if roles["best"].iteration == roles["previous"].iteration else ["previous", "best"]


def _is_due(role: str, reading: Reading) -> bool:
    return role in _baselines(reading.roles) and not _was_evaluated(reading, role)


def _was_evaluated(reading: Reading, role: str) -> bool:
    return reading.has(SECOND_VALIDATION_RESPONSES, iteration=reading.roles[role].iteration)
