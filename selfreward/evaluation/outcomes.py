"""Outcomes by held-out prompt, on which the monitor's decisions are based."""

from collections.abc import Sequence
from typing import Literal

from selfreward.evaluation.preference import Outcome
from selfreward.evaluation.responding import text_token_ids
from selfreward.records import OutcomeSet, PromptOutcome, Response


def length_deltas(responses: Sequence[Response], others: Sequence[Response]) -> list[float]:
    """Return the tokens of each response minus those of the other one, both without the end token."""
    return [
        float(len(text_token_ids(response)) - len(text_token_ids(other)))
        for response, other in zip(responses, others, strict=True)
    ]


def check_outcomes(
    responses: Sequence[Response], passed: Sequence[bool], others_passed: Sequence[bool]
) -> list[Outcome]:
    """Return 1 where only the first of two responses passes its checks, 0 where only the other one does, else 0.5."""
    return [
        Outcome(response.prompt_id, (mine - theirs + 1) / 2)
        for response, mine, theirs in zip(responses, passed, others_passed, strict=True)
    ]


def rows(
    outcomes: Sequence[Outcome],
    responses: Sequence[Response],
    others: Sequence[Response],
    *,
    set: OutcomeSet,
    by: Literal["anchor", "self", "checks"],
    against: int,
) -> list[PromptOutcome]:
    """Return the outcomes as records; `against` is the iteration of the checkpoint that wrote `others`."""
    return [
        PromptOutcome(outcome.prompt_id, set, by, against, outcome.value, delta)
        for outcome, delta in zip(outcomes, length_deltas(responses, others), strict=True)
    ]
