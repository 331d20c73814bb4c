"""Console output of a run: one line for each finished stage, and a short table at the end."""

import json
import shutil
import textwrap
from collections.abc import Mapping
from typing import IO, Any

from selfreward.launch.local import RunResult
from selfreward.reporting.findings import unchanged_responses
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
        self._stream = stream
        self._iteration = -1

    def __call__(self, what: str, iteration: int, stage: str, details: Mapping[str, Any]) -> None:
        if what == "warning":
            self._print(f"warning: {stage}")
        if what == "started" and iteration != self._iteration:
            self._iteration = iteration
            title = f"iteration {iteration}" if iteration else "the initial model"
            self._print(f"── {title} " + "─" * (60 - len(title)))
        # Stages with shards are printed shard by shard.
        if what == "shard" or (what == "finished" and "shard_records" not in details):
            self._print(self._line(stage, details))

    def _line(self, stage: str, details: Mapping[str, Any]) -> str:
        seconds, shard = details["seconds"], details.get("shard", 0)
        name = stage.replace("_", " ") + (f", shard {shard}" if shard else "")
        parts = [f"   {name:34}"]
        records = details.get("num_records")
        parts.append(f"{records:6} records" if records is not None else " " * 14)
        parts.append(f"{seconds:8.1f} s")
        tokens = details["usage"].get("num_generated_tokens", 0) + details["usage"].get("num_prompt_tokens", 0)
        if tokens and seconds:
            parts.append(f"{tokens / seconds:9,.0f} tokens/s")
        return "".join(parts).rstrip()

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def closing(self, result: RunResult) -> str:
        """Return the table of models, the decision's reason, and the path of the report, in printable characters."""
        report = json.loads((result.folder / "report.json").read_text(encoding="utf-8"))
        page = visible(str((result.folder / "report.html").resolve()))
        parts = [
            _wrapped(_finding(report)),
            table(report),
            _wrapped(result.decision.reason),
            _wrapped(report.get("note") or ""),
            page,
        ]
        return "\n" + "\n\n".join(part for part in parts if part)


def _finding(report: Mapping[str, Any]) -> str:
    """Return the finding that the responses did not change, about the newest iteration that has one."""
    for iteration in reversed(report["iterations"]):
        rates = {
            name: (float(value["mean"]), int(value["num_units"]))
            for name, value in iteration["metrics"].items()
            if name.startswith("same_response_rate") and isinstance(value, Mapping) and value["mean"] is not None
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
