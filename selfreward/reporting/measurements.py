"""Measurements as the pages show them: a number, its interval and sign, or the reason for its absence."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from selfreward.records import Evaluation, Interval
from selfreward.reporting.formatting import ABSENT, against, amount, bounds, centre, model_name, reason_not_measured
from selfreward.reporting.glossary import numbers

_PASS_RATE = re.compile(r"(greedy_)?pass_rate")
_PASS_RATE_CHANGE = re.compile(rf"{_PASS_RATE.pattern}_vs_\w+")
_WIN_RATE = re.compile(r"(length_adjusted_)?(self_|test_)?win_rate_vs_\w+")
# Reference values, marked in the interval plot; they are not null values, so they give no sign.
_MARKS = {"judge_reliability": 0.4, "judge_anchor_agreement_rate": 0.5}


@dataclass(frozen=True)
class Cell:
    """A number as it is shown; `low`, `mean`, `high` are the positions of a rate's interval plot on [0, 1]."""

    name: str
    text: str
    bounds: str = ""
    sign: str = ""
    reason: str = ""
    low: float | None = None
    mean: float | None = None
    high: float | None = None
    neutral: float | None = None
    is_invalid: bool = False


def is_invalid(evaluation: Evaluation, name: str) -> bool:
    """Return whether a number was measured by an invalid anchor: it then means nothing, not even at 0.5."""
    by_anchor = _WIN_RATE.fullmatch(name) and "self_" not in name
    return bool(by_anchor) and evaluation.metrics.get("anchor_valid") == 0


def validity_reason(evaluation: Evaluation) -> str:
    """Return why the numbers of the anchor are invalid."""
    return reason_not_measured(evaluation, "anchor") or "the anchor is not valid"


def _no_difference(name: str) -> float | None:
    """Return the null value, which means no difference. Pass rate and length are judged by their paired differences."""
    return 0.5 if _WIN_RATE.fullmatch(name) else 0.0 if _PASS_RATE_CHANGE.fullmatch(name) else None


def cell_of(evaluation: Evaluation | None, name: str) -> Cell:
    """Return the cell of one metric of one checkpoint."""
    value = evaluation.metrics.get(name) if evaluation else None
    if evaluation is None or value is None:
        return Cell(name, ABSENT, reason=reason_not_measured(evaluation, name) if evaluation else "")
    neutral = _no_difference(name)
    sign = "" if neutral is None else against(value, neutral)
    if _PASS_RATE.fullmatch(name):
        sign = against(evaluation.metrics.get(f"{name}_vs_initial"), 0.0)
    if is_invalid(evaluation, name):
        reason = validity_reason(evaluation)
        return Cell(name, amount(name, centre(value)), bounds="invalid", reason=reason, is_invalid=True)
    if not isinstance(value, Interval) or centre(value) is None:
        return Cell(name, amount(name, centre(value)))
    is_rate = name in numbers() and numbers()[name].unit.startswith("rate")
    low, mean, high = (min(max(v, 0.0), 1.0) for v in (value.low, value.mean, value.high))
    return Cell(
        name=name, text=amount(name, value.mean), bounds=bounds(name, value), sign=sign,
        neutral=_MARKS.get(name, neutral),
        low=low if is_rate else None, mean=mean if is_rate else None, high=high if is_rate else None,
    )  # fmt: skip


def plain_cell(name: str, value: float | None) -> Cell:
    """Return the cell of a number without an interval."""
    return Cell(name, amount(name, value))


def measured_names(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return the names of all metrics that any evaluation has, in the order of the glossary, unknown names last."""
    return in_glossary_order({name for evaluation in evaluations for name in evaluation.metrics})


def in_glossary_order(names: Iterable[str]) -> list[str]:
    """Sort names in the order of the glossary, unknown names last."""
    order = {name: index for index, name in enumerate(numbers())}
    return sorted(names, key=lambda name: (order.get(name, len(order)), name))


def points(evaluations: Sequence[Evaluation], name: str) -> list[tuple[int, Interval | float]]:
    """Return (iteration, value) wherever the metric was measured and is valid."""
    return [
        (e.iteration, e.metrics[name])
        for e in evaluations
        if centre(e.metrics.get(name)) is not None and not is_invalid(e, name)
    ]


def models(iterations: Sequence[int]) -> str:
    """Return the names of the checkpoints of these iterations: M₁, M₂."""
    return ", ".join(map(model_name, iterations))


def not_measured(
    evaluations: Sequence[Evaluation], *, named: Callable[[Sequence[int]], str] = models
) -> list[tuple[str, str, str]]:
    """Return (metrics, iterations, reason) for each reason and set of iterations; `named` formats the iterations."""
    by_reason: dict[str, dict[str, list[int]]] = {}
    for evaluation in evaluations:
        for name, reason in evaluation.not_measured.items():
            by_reason.setdefault(reason, {}).setdefault(name, []).append(evaluation.iteration)
    rows: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for reason, metrics in by_reason.items():
        for name, iterations in metrics.items():
            rows.setdefault((reason, tuple(iterations)), []).append(_label(name))
    return [(", ".join(names), named(iterations), reason) for (reason, iterations), names in rows.items()]


def about_intervals(evaluations: Sequence[Evaluation], *, over: str = "held-out prompts") -> str:
    """Return one line on level, units and method of the intervals; empty without intervals."""
    found = [v for e in evaluations for v in e.metrics.values() if isinstance(v, Interval)]
    if not found:
        return ""
    levels = sorted({f"{v.level * 100:g} %" for v in found})
    methods = sorted({v.method for v in found})
    units = [v.num_units for v in found]
    prompts = f"{min(units):,}" if min(units) == max(units) else f"{min(units):,} to {max(units):,}"
    return f"{' and '.join(levels)} intervals over {prompts} {over} ({', '.join(methods)})"


def _label(name: str) -> str:
    number = numbers().get(name)
    return {"all": "everything", "anchor": "win rates"}.get(name, number.label if number else name)


def as_json(metrics: Mapping[str, Interval | float]) -> dict[str, object]:
    """Return the metrics of report.json; a number that is not finite is null."""
    return {
        name: {
            "mean": centre(v.mean), "low": centre(v.low), "high": centre(v.high),
            "level": v.level, "num_units": v.num_units, "method": v.method,
        } if isinstance(v, Interval) else centre(v)
        for name, v in metrics.items()
    }  # fmt: skip
