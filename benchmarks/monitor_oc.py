"""Operating characteristics of the monitor's decision on simulated runs: false stops, missed plateaus, failures.

    python benchmarks/monitor_oc.py [--quick] [--json FILE] [--text FILE] [--seed N] [--processes N]

It runs the shipped `decide` on simulated outcomes per prompt, without access to the truth. Each number has its
Monte-Carlo standard error in round brackets and, if there is one, its prediction in square brackets.
"""

import argparse
import json
import math
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from monitor_oc_readings import Line, Table
from monitor_oc_rules import Run, simulate
from monitor_oc_scenarios import Scenario
from monitor_oc_tables import REQUIRED, tables

from selfreward.statistics.intervals import LARGE_SAMPLE

CHUNK = 50


@dataclass(frozen=True)
class Scale:
    """The number of runs of a line of weight 1; lower with bootstrapped intervals, which cost thirty times as much.

    With `num_bootstrapped` 0 such lines are left out.
    """

    num_runs: int
    num_bootstrapped: int

    def runs_of(self, line: Line) -> int:
        scenario = line.scenario
        units = scenario.n // (scenario.document_size if scenario.by_document else 1)
        return round(line.weight * (self.num_runs if units >= LARGE_SAMPLE else self.num_bootstrapped))


QUICK, FULL = Scale(60, 0), Scale(400, 60)


def in_chunks(pool: ProcessPoolExecutor, seed: int, scenario: Scenario, *, num_runs: int) -> list[Run]:
    """Return the runs 0 to num_runs - 1, independently of the assignment to processes."""
    starts = range(0, num_runs, CHUNK)
    blocks = [range(start, min(start + CHUNK, num_runs)) for start in starts]
    return [run for block in pool.map(partial(simulate, scenario, seed=seed), blocks) for run in block]


def measured(table: Table, line: Line, simulated: Callable[..., list[Run]]) -> list[dict[str, Any]]:
    """Return one entry per column: estimate, standard error and prediction."""
    entries = []
    for number, column in enumerate(table.columns):
        scenario = column.variant(line.scenario)
        runs = simulated(scenario)
        values = [value for run in runs if (value := column.of(scenario, line.rule, run)) is not None]
        # An estimated rate of 0 or 1 still has an error.
        variance = float(np.var(values)) if values else None
        if variance == 0 and values[0] in (0, 1):
            variance = 1 / len(values)
        entries.append(
            {
                "column": column.name,
                "found": float(np.mean(values)) if values else None,
                "se": math.sqrt(variance / len(values)) if variance is not None else None,
                "predicted": line.predicted[number] if line.predicted else column.predict(scenario),
            }
        )
    return entries


def cell(entry: dict[str, Any]) -> str:
    if entry["found"] is None:
        return "-"
    predicted = f" [{entry['predicted']}]" if entry["predicted"] else ""
    return f"{entry['found']:.3f} ({entry['se']:.3f}){predicted}"


def report(
    table: Table, simulated: Callable[..., list[Run]], scale: Scale, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    """Print the table line by line as it is simulated."""
    widths = [max(len(column.name), 21) for column in table.columns]
    width = max(len(line.name) for line in table.lines)
    say(f"\n## {table.title}\n\n{textwrap.fill(table.note, 110)}\n")
    names = [f"{column.name:{w}s}" for column, w in zip(table.columns, widths, strict=True)]
    say(f"{'':{width}s}  {'runs':>5s}  " + "  ".join(names).rstrip())
    rows = []
    # Lines and columns of the same scenario use the same runs.
    simulated = cache(simulated)
    for line in table.lines:
        if not (num_runs := scale.runs_of(line)):
            continue
        entries = measured(table, line, partial(simulated, num_runs=num_runs))
        cells = "  ".join(f"{cell(entry):{w}s}" for entry, w in zip(entries, widths, strict=True))
        say(f"{line.name:{width}s}  {num_runs:5d}  {cells}".rstrip())
        rows.append({"scenario": line.name, "num_runs": num_runs, "measures": entries})
    return rows


def required(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the required figures by name, each with its standard error."""
    by_cell = {(row["scenario"], entry["column"]): entry for row in rows for entry in row["measures"]}
    found: dict[str, float] = {}
    for name, requirement in REQUIRED.items():
        entry = by_cell[requirement.line, requirement.column]
        found |= {name: entry["found"], f"{name}_se": entry["se"]}
    return found


def verdicts(found: dict[str, float]) -> list[str]:
    """Return whether each requirement is met; a miss of up to two standard errors is inconclusive."""
    sentences = []
    for name, requirement in REQUIRED.items():
        value, error = found[name], found[f"{name}_se"]
        over = value - requirement.limit if requirement.at_most else requirement.limit - value
        word = "met" if over <= 0 else "within the error of the simulation" if over <= 2 * error else "NOT MET"
        wanted = f"at {'most' if requirement.at_most else 'least'} {requirement.limit:g}"
        sentences.append(f"{name:20s} {value:.4f} ({error:.4f})  {wanted:14s} {word}")
    return sentences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer runs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--text", type=Path, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    started, lines = time.monotonic(), []

    def say(text: str) -> None:
        lines.append(text)
        print(text, flush=True)

    say("Operating characteristics of the monitor: estimate (Monte-Carlo standard error) [prediction]")
    found: dict[str, Any] = {}
    by_title: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(arguments.processes) as pool:
        for table in tables():
            simulated = partial(in_chunks, pool, arguments.seed)
            began = time.monotonic()
            by_title[table.title] = report(table, simulated, QUICK if arguments.quick else FULL, say)
            print(f"{time.monotonic() - began:.0f} s")
            if not found:
                found = required(by_title[table.title])
                say("\n" + "\n".join(verdicts(found)))
    seconds = time.monotonic() - started
    print(f"\n{seconds:.0f} s")
    if arguments.text:
        arguments.text.write_text("\n".join(lines) + "\n")
    if arguments.json:
        result = {"schema": 1, **found, "seed": arguments.seed, "quick": arguments.quick, "seconds": seconds}
        arguments.json.write_text(json.dumps(result | {"tables": by_title}, indent=1) + "\n")


if __name__ == "__main__":
    main()
