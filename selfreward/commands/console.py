"""Console output of a run: one line for each finished stage, and at the end a short table and what to do next."""

import json
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import IO, Any

from selfreward.commands.places import places
from selfreward.launch.lines import Lines
from selfreward.launch.result import RunResult
from selfreward.reporting.findings import METRICS, unchanged_responses
from selfreward.reporting.text import one_line, visible

_MAX_NOTE = 2000
# Two lines of column heads, so that the table fits into 80 columns. `last` is greedy, where it is measured, or tokens.
_HEADS = (
    ("", "", "un-", "win rate", "win rate", "", "", ""),
    ("", "pairs", "scored", "vs previous", "vs M_0", "pass rate", "{last}", "decision"),
)
_SHARES = ("greedy_pass_rate",)
_RATES = ("win_rate_vs_previous", "win_rate_vs_initial", "pass_rate")


class Console:
    """Progress as plain lines; while a stage runs, engine and trainer show their own progress bars on a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lines = stream, Lines()

    def __call__(self, what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> None:
        for line in self._lines(what, iteration, stage, details):
            print(line, file=self._stream, flush=True)

    def closing(self, result: RunResult, command: Sequence[str] = ()) -> str:
        """Return the table of models, the decision's reason, and where everything is, in printable characters.

        `command` is the command that ran, without limits to raise; without it no command to continue is shown.
        """
        report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
        parts = [
            _wrapped(_finding(report)),
            table(report),
            _wrapped(result.decision.reason),
            _wrapped(report.get("note") or ""),
            visible(places(result, report, command)),
        ]
        return "\n" + "\n\n".join(part for part in parts if part)


def _finding(report: Mapping[str, Any]) -> str:
    """Return the finding that the responses did not change, about the newest iteration that has one."""
    for iteration in reversed(report["iterations"]):
        rates = {
            name: (float(value["mean"]), int(value["num_units"]))
            for name, value in iteration["metrics"].items()
            if name in METRICS and isinstance(value, Mapping) and value["mean"] is not None
        }
        if found := unchanged_responses(iteration["iteration"], rates):
            return found
    return ""


def table(report: Mapping[str, Any]) -> str:
    """Return the models of report.json as a table of 80 columns, M_0 first; rates in percent with their intervals."""
    initial = [report["initial"]] if report.get("initial") else []
    is_greedy = any("greedy_pass_rate" in found["metrics"] for found in (*initial, *report["iterations"]))
    last = "greedy_pass_rate" if is_greedy else "response_tokens"
    heads = [tuple(cell.format(last="greedy" if is_greedy else "tokens") for cell in head) for head in _HEADS]
    rows: list[tuple[str, ...]] = heads
    rows += [("M_0", "", "", "", "", *_measured(found["metrics"], last)[2:], "") for found in initial]
    rows += [_row(iteration, last) for iteration in report["iterations"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(iteration: Mapping[str, Any], last: str) -> tuple[str, ...]:
    counts, decision = iteration["counts"], iteration["decision"] or {}
    judged = counts.get("num_judgments", 0)
    return (
        f"M_{iteration['iteration']}",
        str(counts.get("num_pairs", 0)),
        f"{counts.get('num_unscored_judgments', 0) / judged:.0%}" if judged else "-",
        *_measured(iteration["metrics"], last),
        one_line(str(decision.get("decision", "-"))),
    )


def _measured(metrics: Mapping[str, Any], last: str) -> tuple[str, ...]:
    """Return the three rates, and the metric `last` without its interval."""
    cells = [_rate(metrics.get(name)) for name in _RATES]
    if metrics.get("anchor_valid") == 0:
        cells[:2] = ["invalid" if cell != "-" else cell for cell in cells[:2]]
    found = metrics.get(last)
    mean = found["mean"] if isinstance(found, Mapping) else found
    return (*cells, "-" if mean is None else f"{mean:.0%}" if last in _SHARES else f"{mean:.0f}")


def _rate(metric: Any) -> str:
    """Format a rate as 57% [54–61]; "-" when it was not measured."""
    if not isinstance(metric, Mapping):
        return "-" if metric is None else f"{metric:.0%}"
    mean, low, high = (metric[key] for key in ("mean", "low", "high"))
    if mean is None:
        return "-"
    ends = (f"{100 * end:.0f}" if end is not None else "?" for end in (low, high))
    return f"{mean:.0%} [{'–'.join(ends)}]"


def _wrapped(text: str) -> str:
    """Return the text without control characters, wrapped between words at the width of the terminal, if any."""
    columns = shutil.get_terminal_size((_MAX_NOTE, 24)).columns
    lines = (one_line(line, _MAX_NOTE) for line in text.splitlines())
    return "\n".join(textwrap.fill(line, columns, break_long_words=False, break_on_hyphens=False) for line in lines)
