"""The numbers of a run as one table, a row for each iteration and metric: metrics.jsonl and `Run.metrics`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selfreward.records import Evaluation, Interval, IterationSummary
from selfreward.reporting.formatting import centre, reason_not_measured
from selfreward.reporting.measurements import in_glossary_order, is_invalid, validity_reason

Section = Literal["counts", "judging", "evaluation", "test", "training", "cost"]

_GROUPS = ("all", "anchor")  # keys of `Evaluation.not_measured` that are no metrics: a reason for several of them
_NOT_FINITE = "the number is not finite"


@dataclass(frozen=True)
class MetricRow:
    """One number of one iteration (0: M_0). A number that is not `valid` is None, and `reason` says why.

    `mean` is the number itself where it has no interval; then `low`, `high`, `level`, `num_units` and `method` are
    None. `metric` is a name of docs/metrics.md. In the section `cost` it has the stage before it, as in
    `responses.seconds`.
    """

    iteration: int
    section: Section
    metric: str
    mean: float | None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    num_units: int | None = None
    method: str | None = None
    valid: bool = True
    reason: str | None = None


def metric_rows(history: Sequence[IterationSummary], initial: Evaluation | None = None) -> Iterator[MetricRow]:
    """Yield the rows of M_0 and of all finished iterations, in their order."""
    if initial is not None:
        yield from evaluation_rows(initial, "evaluation")
    for summary in history:
        yield from _of_summary(summary)


def evaluation_rows(evaluation: Evaluation, section: Section, iteration: int | None = None) -> Iterator[MetricRow]:
    """Yield a row for each number of an evaluation, measured or not, in the order of the glossary.

    Where nothing at all could be measured, the reason is in a row named `all`.
    """
    t = evaluation.iteration if iteration is None else iteration
    for name in in_glossary_order({*evaluation.metrics, *evaluation.not_measured} - {*_GROUPS}):
        value = evaluation.metrics.get(name)
        if value is None:
            yield _without_value(t, section, name, reason_not_measured(evaluation, name))
        elif is_invalid(evaluation, name):
            yield _without_value(t, section, name, validity_reason(evaluation))
        else:
            yield _row(t, section, name, value)
    if reason := evaluation.not_measured.get("all"):
        yield _without_value(t, section, "all", reason)


def _of_summary(summary: IterationSummary) -> Iterator[MetricRow]:
    t = summary.iteration
    yield from _plain(t, "counts", summary.counts)
    if summary.judging is not None:
        yield from evaluation_rows(summary.judging, "judging", t)
    yield from evaluation_rows(summary.evaluation, "evaluation", t)
    if summary.test_set is not None:
        yield from evaluation_rows(summary.test_set, "test", t)
    yield from _plain(t, "training", summary.training)
    for stage, seconds in summary.seconds_by_stage.items():
        costs = {"seconds": seconds, **summary.usage_by_stage.get(stage, {})}
        yield from _plain(t, "cost", {f"{stage}.{name}": value for name, value in costs.items()})


def _plain(iteration: int, section: Section, values: Mapping[str, Any]) -> Iterator[MetricRow]:
    """Yield a row for each number; lists, such as the steps of a training, and texts are in the iteration's folder."""
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield _row(iteration, section, name, value)


def _row(iteration: int, section: Section, name: str, value: Interval | float) -> MetricRow:
    mean = centre(value)
    if mean is None:
        return _without_value(iteration, section, name, _NOT_FINITE)
    if not isinstance(value, Interval):
        return MetricRow(iteration, section, name, mean)
    low, high = (end if math.isfinite(end) else None for end in (value.low, value.high))
    return MetricRow(iteration, section, name, mean, low, high, value.level, value.num_units, value.method)


def _without_value(iteration: int, section: Section, name: str, reason: str) -> MetricRow:
    return MetricRow(iteration, section, name, None, valid=False, reason=reason)
