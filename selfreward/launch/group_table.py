"""The table of a group of runs: what each of them came to, as CSV and as Markdown."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from selfreward.errors import SelfRewardError
from selfreward.launch.group import Member, keys_of
from selfreward.launch.status import FINISHED, status_of
from selfreward.store.files import read_text, write_text_atomically

METRICS: Final = (
    "win_rate_vs_initial", "length_adjusted_win_rate_vs_initial", "pass_rate", "response_tokens",
)  # fmt: skip
CSV, MARKDOWN = "table.csv", "table.md"


class Row(NamedTuple):
    """A run. `metrics` are the means and intervals of its last iteration, without those that are invalid."""

    values: Mapping[str, Any]
    folder: Path
    iterations: int
    decision: str
    metrics: Mapping[str, tuple[float | None, float | None, float | None]]
    invalid: Sequence[str]
    state: str
    is_finished: bool


def rows_of(members: Sequence[Member]) -> list[Row]:
    return [_row(member) for member in members]


def _row(member: Member) -> Row:
    try:
        status = status_of(member.folder)
    except SelfRewardError as error:  # not begun, or damaged
        return Row(member.values, member.folder, 0, "", {}, (), str(error).partition(";")[0], is_finished=False)
    last = _last_iteration(member.folder)
    invalid = [name for name in METRICS if name in last.get("invalid", {})]
    metrics = {name: _interval(last["metrics"][name]) for name in METRICS if name in last.get("metrics", {})}
    return Row(
        member.values,
        member.folder,
        status["num_iterations"],
        " ".join(dict.fromkeys(word for word in (status["decision"], status["stopped_by"]) if word)),
        {name: value for name, value in metrics.items() if name not in invalid},
        invalid,
        _state(status),
        status["state"] == FINISHED,
    )


def _last_iteration(folder: Path) -> dict[str, Any]:
    """Return the last iteration of report.json; nothing before the first."""
    with suppress(OSError, ValueError, KeyError, IndexError):
        return dict(json.loads(read_text(folder / "report.json"))["iterations"][-1])
    return {}


def _interval(value: Any) -> tuple[float | None, float | None, float | None]:
    return (value["mean"], value["low"], value["high"]) if isinstance(value, Mapping) else (value, None, None)


def _state(status: Mapping[str, Any]) -> str:
    """Return "finished", or how far the run is from it, with the job that worked on it last."""
    state, job = str(status["state"]), status["job"]
    if state == FINISHED:
        return state
    code = "" if status["exit_code"] is None or state in ("running", "queued") else f", exit code {status['exit_code']}"
    of_job = f"; job {job['id']} is {job['state']}" if job else ""
    return f"{state}{code}{of_job}"


def write_table(folder: Path, members: Sequence[Member]) -> tuple[list[Row], str]:
    """Write both files into a folder; return the rows and the Markdown. Raises StoreError."""
    rows, keys = rows_of(members), keys_of(members)
    text = as_markdown(rows, keys)
    write_text_atomically(folder / CSV, _as_csv(rows, keys))
    write_text_atomically(folder / MARKDOWN, text)
    return rows, text


def _as_csv(rows: Sequence[Row], keys: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    numbers = [f"{name}{end}" for name in METRICS for end in ("", "_low", "_high")]
    writer.writerow([*keys, "iterations", "decision", *numbers, "invalid", "state", "folder"])
    for row in rows:
        found = [number for name in METRICS for number in row.metrics.get(name, (None, None, None))]
        values = [_text(row.values.get(key)) for key in keys]
        writer.writerow(
            [*values, row.iterations, row.decision, *found, " ".join(row.invalid), row.state, str(row.folder)]
        )
    return stream.getvalue()


def as_markdown(rows: Sequence[Row], keys: Sequence[str]) -> str:
    """Return the table without columns of metrics that no run has, and below it the folders of unfinished runs."""
    names = [name for name in METRICS if any(name in row.metrics or name in row.invalid for row in rows)]
    head = [*keys, "iterations", "decision", *(name.replace("_", " ") for name in names), "state"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        values = [_text(row.values.get(key)) for key in keys]
        lines.append([*values, str(row.iterations), row.decision or "-", *(_cell(row, n) for n in names), row.state])
    text = "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
    if unfinished := [row for row in rows if not row.is_finished]:
        text += f"\n{len(unfinished)} of {len(rows)} runs have not finished:\n\n"
        text += "".join(f"- `{row.folder}`: {row.state}\n" for row in unfinished)
    return text


def _cell(row: Row, name: str) -> str:
    if name in row.invalid:
        return "invalid"
    mean, low, high = row.metrics.get(name, (None, None, None))
    if mean is None:
        return "-"
    return f"{mean:.4g}" if low is None or high is None else f"{mean:.4g} [{low:.4g}, {high:.4g}]"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
