"""Metrics of a run as `pandas.DataFrame`s."""

from collections.abc import Mapping, Sequence
from dataclasses import fields

import pandas as pd

from selfreward.records import Decision
from selfreward.reporting.metric_rows import MetricRow

_WHOLE = {"num_units": "Int64"}
_COUNTS = ("num_prompts", "num_pairs")
_NUMBERS = ("judge_unscored_rate", "judge_reliability")
_INTERVALS = ("win_rate_vs_previous", "win_rate_vs_initial", "pass_rate", "greedy_pass_rate", "response_tokens")


def metrics_frame(rows: Sequence[MetricRow]) -> pd.DataFrame:
    """Return the table of metrics.jsonl. Missing numbers are null (NaN, or NA in columns of whole numbers)."""
    frame = pd.DataFrame([vars(row) for row in rows], columns=[field.name for field in fields(MetricRow)])
    numbers = dict.fromkeys(("mean", "low", "high", "level"), "float64")
    return frame.astype({**numbers, **_WHOLE, "iteration": "int64", "valid": "bool"})


def summary_frame(rows: Sequence[MetricRow], decisions: Sequence[Decision]) -> pd.DataFrame:
    """Return the headline numbers, a row for each iteration from M_0, with the decision on it."""
    decided = {decision.iteration: decision for decision in decisions}
    found = [_headline(t, rows, decided) for t in sorted({row.iteration for row in rows})]
    columns = ["iteration", *_COUNTS, *_NUMBERS]
    columns += [f"{name}{end}" for name in _INTERVALS for end in ("", "_low", "_high")]
    frame = pd.DataFrame(found, columns=[*columns, "decision", "best_iteration"])
    floats = dict.fromkeys(columns[1 + len(_COUNTS) :], "float64")
    return frame.astype({**floats, **dict.fromkeys([*_COUNTS, "best_iteration"], "Int64")})


def _headline(t: int, rows: Sequence[MetricRow], decided: Mapping[int, Decision]) -> dict[str, object]:
    by_name = {
        row.metric: row for row in rows if row.iteration == t and row.section not in ("test", "training", "cost")
    }
    line: dict[str, object] = {"iteration": t}
    for name in (*_COUNTS, *_NUMBERS, *_INTERVALS):
        if row := by_name.get(name):
            line |= {name: row.mean, f"{name}_low": row.low, f"{name}_high": row.high}
    if decision := decided.get(t):
        line |= {"decision": decision.decision, "best_iteration": decision.best_iteration}
    return line
