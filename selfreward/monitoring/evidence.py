"""The evidence on which the decision on one iteration is based: per-prompt outcomes, and a few rates.

It comes from the records of a run, from a table of any other trainer (`table.py`), or from a simulation; the decision
does not depend on which.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selfreward.records import Interval, IterationSummary, PromptOutcome
from selfreward.statistics.intervals import rate_interval

Array = NDArray[np.float64]
Key = tuple[str, str, int]
"""Source, set of prompts and iteration compared with, for example `("anchor", "validation", 2)`."""


@dataclass(frozen=True)
class Outcomes:
    """One value in [0, 1] for each prompt, shape (n,), without the `num_unscored` prompts that have none.

    `length_deltas_tokens`, if known, has the same shape; NaN where a length is missing.
    """

    prompt_ids: tuple[str, ...]
    values: Array
    length_deltas_tokens: Array | None = None
    num_unscored: int = 0

    @property
    def unscored_rate(self) -> float:
        num_prompts = len(self.values) + self.num_unscored
        return self.num_unscored / num_prompts if num_prompts else 0.0


@dataclass(frozen=True)
class Evidence:
    """The evidence on iteration t.

    `previous` is the iteration of the checkpoint from which M_t was trained; without training M_t is that checkpoint,
    and nothing is compared. `num_second_validation` is the number of prompts available for a second analysis (0: there
    is no second validation set). `invalid` are reasons, found during data collection, why the comparisons mean nothing.
    `anchor_examined`: the anchor compared each pair in both orders, so that equal outcomes need not be its fault.
    `num_same_responses`: the number of validation prompts, if all responses to them are the previous checkpoint's.
    `reliability`, `pair_yield_rate` and `tau` describe the iteration's judge; `failing` is the share of responses below
    the full score, if the judge is a program. A reliability of 0 may have no interval.
    """

    iteration: int
    previous: int
    outcomes: Mapping[Key, Outcomes] = field(default_factory=dict)
    trained: bool = True
    num_second_validation: int = 0
    invalid: tuple[str, ...] = ()
    anchor_examined: bool = False
    num_same_responses: int = 0
    position_consistency: float | None = None
    reliability: Interval | float | None = None
    pair_yield_rate: Interval | None = None
    tau: Interval | None = None
    failing: Interval | None = None

    @property
    def num_reliability_prompts(self) -> int:
        """The number of prompts behind `reliability`; without an interval, that of the prompts that were judged."""
        counted = self.reliability if isinstance(self.reliability, Interval) else self.pair_yield_rate
        return counted.num_units if counted else 0

    def of(self, by: str, against: int, set: str = "validation") -> Outcomes | None:
        return self.outcomes.get((by, set, against))


def tabulate(rows: Iterable[PromptOutcome]) -> dict[Key, Outcomes]:
    """Return the rows as outcomes by key; rows of the same prompt are averaged, because the prompt is the unit."""
    sums: defaultdict[Key, dict[str, _Sums]] = defaultdict(dict)
    for row in rows:
        by_prompt = sums[row.by, row.set, row.against]
        if (so_far := by_prompt.get(row.prompt_id)) is None:
            so_far = by_prompt[row.prompt_id] = _Sums()
        so_far.add(row)
    return {key: _outcomes(by_prompt) for key, by_prompt in sums.items()}


class _Sums:
    """Sums over the scored rows of one prompt."""

    __slots__ = ("delta", "num_deltas", "num_outcomes", "outcome")

    def __init__(self) -> None:
        self.outcome = self.delta = 0.0
        self.num_outcomes = self.num_deltas = 0

    def add(self, row: PromptOutcome) -> None:
        if row.outcome is None:
            return
        self.outcome += row.outcome
        self.num_outcomes += 1
        if row.length_delta_tokens is not None:
            self.delta += row.length_delta_tokens
            self.num_deltas += 1


def _outcomes(by_prompt: Mapping[str, _Sums]) -> Outcomes:
    scored = {prompt_id: sums for prompt_id, sums in by_prompt.items() if sums.num_outcomes}
    deltas = np.array([s.delta / s.num_deltas if s.num_deltas else np.nan for s in scored.values()], dtype=np.float64)
    return Outcomes(
        prompt_ids=tuple(scored),
        values=np.array([s.outcome / s.num_outcomes for s in scored.values()], dtype=np.float64),
        length_deltas_tokens=None if np.isnan(deltas).all() else deltas,
        num_unscored=len(by_prompt) - len(scored),
    )


def evidence_of(history: Sequence[IterationSummary], *, num_second_validation: int) -> list[Evidence]:
    """Return the evidence on each iteration of a run, from its summaries 1..t in order."""
    found: list[Evidence] = []
    previous = 0
    for summary in history:
        found.append(_evidence(summary, previous=previous, num_second_validation=num_second_validation))
        if found[-1].trained:
            previous = summary.iteration
    return found


def _evidence(summary: IterationSummary, *, previous: int, num_second_validation: int) -> Evidence:
    measured, judging = summary.evaluation, summary.judging
    about_judge = judging.metrics if judging else {}
    problems = []
    if measured.metrics.get("anchor_valid", 1.0) == 0.0:
        problems.append(
            measured.not_measured.get("anchor", "the anchor failed its validity check").removeprefix("INVALID: ")
        )
    if overlapping := summary.counts.get("num_overlapping_prompts", 0):
        problems.append(f"{overlapping} training prompts of this iteration overlap with held-out prompts")
    consistency = measured.metrics.get("position_consistency_rate")
    same = _interval(measured.metrics.get("same_response_rate_vs_previous"))
    return Evidence(
        iteration=summary.iteration,
        previous=previous,
        outcomes=tabulate(summary.outcomes),
        trained=bool(summary.training or measured.metrics),
        num_second_validation=num_second_validation,
        invalid=tuple(problems),
        anchor_examined=True,
        num_same_responses=same.num_units if same and same.mean == 1 else 0,
        position_consistency=consistency.mean if isinstance(consistency, Interval) else None,
        reliability=about_judge.get("judge_reliability"),
        pair_yield_rate=pair_yield(summary.counts),
        tau=_interval(about_judge.get("judge_tau_previous")),
        failing=_interval(about_judge.get("failing_response_rate")),
    )


def pair_yield(counts: Mapping[str, int]) -> Interval | None:
    """Return the share of prompts that gave a pair of responses; None without prompts."""
    num_prompts, num_dropped = counts.get("num_prompts", 0), counts.get("num_dropped_prompts", 0)
    if num_prompts == 0:
        return None
    return rate_interval([True] * (num_prompts - num_dropped) + [False] * num_dropped)


def _interval(metric: Interval | float | None) -> Interval | None:
    return metric if isinstance(metric, Interval) else None
