"""A table of outcomes by prompt, made by any trainer, as what the monitor decides on.

CSV with a heading, or Parquet with the same columns; a row is what one held-out prompt says of one iteration:

    iteration            1, 2, 3, ...: iteration t compares M_t with M_{t-1}
    prompt_id            rows of one prompt in one iteration are averaged, because the prompt is the unit
    anchor_outcome       1: the anchor finds M_t better than M_{t-1}, 0.5: no difference, 0: worse; blank: unscored
    self_outcome         optional, the same by the judge that labels
    verifiable_outcome   optional, the same by checks (passed now and not before: 1; the other way round: 0)
    length_delta_tokens  optional, length of M_t's response less that of M_{t-1}'s
    set                  optional, monitor (also when blank) or second validation set
    against              optional, the checkpoint that M_t is compared with; t-1 when blank

A row with a verifiable outcome alone was not put to the anchor. Rows against the best checkpoint so far, where that is
not M_{t-1}, are what lets M_t take its place. Other columns are ignored and named in the notes.
"""

import csv
import difflib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.monitoring.evidence import Evidence, tabulate
from selfreward.recipe.renamed import OUTCOME_SETS
from selfreward.records import PromptOutcome

REQUIRED = ("iteration", "prompt_id", "anchor_outcome")
OPTIONAL = ("self_outcome", "verifiable_outcome", "length_delta_tokens", "set", "against")
_SETS = ("validation", "second_validation")
_SHOWN_DEFECTS = 5

Cells = Mapping[str, Any]
"""The known columns of a row by name: text from CSV, any value from Parquet; None or blank text is not measured."""


@dataclass(frozen=True)
class Table:
    """`evidence` of iterations 1..T in order; `notes` are sentences on what was found and is no error."""

    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]


class _Wrong(Exception):
    """What was found in a row; what is allowed; what to do."""


def read_table(path: Path) -> Table:
    """Raises RecipeError, which names the file and the row."""
    by_iteration: defaultdict[int, list[PromptOutcome]] = defaultdict(list)
    defects: list[str] = []
    with _readable(path):
        heading, rows = _parquet(path) if path.suffix == ".parquet" else _csv(path)
        for where, cells in rows:
            try:
                iteration = _whole(cells, "iteration", "iterations are whole numbers from 1 on", low=1)
                by_iteration[iteration] += _outcomes(cells, iteration)
            except _Wrong as wrong:
                defects.append(f"{where}: {wrong}")
    if defects:
        more = f"\n... and {len(defects) - _SHOWN_DEFECTS:,} more" if len(defects) > _SHOWN_DEFECTS else ""
        raise RecipeError("\n".join(defects[:_SHOWN_DEFECTS]) + more)
    _check_iterations(path, by_iteration)
    num_second_validation = _second_validation_size(path, by_iteration)
    evidence = tuple(
        Evidence(
            iteration=t, previous=t - 1, outcomes=tabulate(by_iteration[t]), num_second_validation=num_second_validation
        )
        for t in sorted(by_iteration)
    )
    return Table(evidence, tuple(_notes(heading, by_iteration)))


def _outcomes(cells: Cells, iteration: int) -> list[PromptOutcome]:
    prompt_id = _text(cells["prompt_id"])
    if not prompt_id:
        raise _Wrong("prompt_id is blank; each row is about a prompt; give it the prompt's name")
    name = _text(cells.get("set")) or "validation"
    if name in OUTCOME_SETS:
        raise _Wrong(f"set is {name!r}, which was renamed; it is called {OUTCOME_SETS[name]} now; rename it")
    if name not in _SETS:
        raise _Wrong(f"set is {name!r:.60}; allowed are {', '.join(_SETS)}; {_suggest(name, _SETS)}")
    against = iteration - 1
    if not _is_blank(cells.get("against")):
        against = _whole(cells, "against", f"checkpoints before M_{iteration} are 0 to {against}", low=0, high=against)
    anchor, own, verifiable = (_outcome(cells, c) for c in ("anchor_outcome", "self_outcome", "verifiable_outcome"))
    delta = _number(cells, "length_delta_tokens")
    found = []
    if anchor is not None or own is not None or verifiable is None:
        found.append(PromptOutcome(prompt_id, name, "anchor", against, anchor, delta))  # type: ignore[arg-type]
    if own is not None:
        found.append(PromptOutcome(prompt_id, name, "self", against, own, delta))  # type: ignore[arg-type]
    if verifiable is not None:
        found.append(PromptOutcome(prompt_id, "verifiable", "checks", against, verifiable, delta))
    return found


def _whole(cells: Cells, column: str, allowed: str, *, low: int, high: float = math.inf) -> int:
    try:
        number = float(cells[column])  # tables with gaps write 2.0 for 2
    except (TypeError, ValueError):
        number = math.nan
    if number.is_integer() and low <= number <= high:
        return int(number)
    found = "blank" if _is_blank(cells[column]) else f"{cells[column]!r:.60}"
    raise _Wrong(f"{column} is {found}; {allowed}; fix the cell")


def _outcome(cells: Cells, column: str) -> float | None:
    value = _number(cells, column)
    if value is None or 0 <= value <= 1:
        return value
    raise _Wrong(f"{column} is {value:g}; outcomes lie in [0, 1], 0.5 is no difference; fix the cell")


def _number(cells: Cells, column: str) -> float | None:
    cell = cells.get(column)
    if _is_blank(cell):
        return None
    try:
        number = float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        advice = "write a point, not a comma" if _text(cell).replace(",", "", 1).isdecimal() else "fix the cell"
        raise _Wrong(f"{column} is {cell!r:.60}; a number, or blank for not measured, is needed; {advice}") from None
    if not math.isfinite(number):
        raise _Wrong(f"{column} is {cell!r:.60}; a number is needed; leave the cell blank where nothing was measured")
    return number


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _text(cell: Any) -> str:
    return "" if cell is None else str(cell).strip()


def _csv(path: Path) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    """The heading, and where each row stands with its cells."""
    lines = _csv_lines(path)
    _, first = next(lines, (0, []))
    heading = [name.strip() for name in first]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(heading) == 1 and separator in heading[0]:
            raise RecipeError(f"{path}:1: columns separated by {name}; commas are needed; save the table with commas")
    columns = _columns(path, heading)

    def rows() -> Iterator[tuple[str, Cells]]:
        for number, line in lines:
            if len(line) != len(heading):
                raise RecipeError(
                    f"{path}:{number}: {len(line)} cells, but the heading has {len(heading)}; each row has as many as "
                    "the heading; quote texts with commas, or write the file again if it was cut off"
                )
            yield f"{path}:{number}", {name: line[index] for name, index in columns}

    return heading, rows()


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line that is not blank. Excel puts a byte order mark before the first."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        for line in reader:
            if any(cell.strip() for cell in line):
                yield reader.line_num, line


def _parquet(path: Path) -> tuple[list[str], Iterator[tuple[str, Cells]]]:
    import pyarrow.parquet as pq

    whole = pq.read_table(path)
    heading = list(whole.column_names)
    columns = _columns(path, heading)
    values = [whole.column(index).to_pylist() for _, index in columns]

    def rows() -> Iterator[tuple[str, Cells]]:
        for number, cells in enumerate(zip(*values, strict=True), start=1):
            yield f"{path}: row {number}", {name: cell for (name, _), cell in zip(columns, cells, strict=True)}

    return heading, rows()


def _columns(path: Path, heading: Sequence[str]) -> list[tuple[str, int]]:
    """The known columns of a heading and where they stand."""
    known = [(name, index) for index, name in enumerate(heading) if name in (*REQUIRED, *OPTIONAL)]
    names = [name for name, _ in known]
    if twice := {name for name in names if names.count(name) > 1}:
        raise RecipeError(f"{path}:1: the column {min(twice)} stands twice; each stands once; remove or rename one")
    for name in REQUIRED:
        if name not in names:
            others = [other for other in heading if other and other not in names]
            close = difflib.get_close_matches(name, others, n=1)
            advice = f"rename {close[0]!r} if it is that" if close else "add it"
            raise RecipeError(
                f"{path}:1: no column {name}; found are {', '.join(heading) or 'none'}; needed are "
                f"{', '.join(REQUIRED)}, optional {', '.join(OPTIONAL)}; {advice}"
            )
    return known


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    kind = "a Parquet file" if path.suffix == ".parquet" else "CSV in UTF-8"
    try:
        yield
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; {kind} is needed; check the path") from None
    except RecipeError:
        raise
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecipeError(f"{path}: cannot be read ({error}); {kind} is needed; check the file") from error
    except ValueError as error:  # pyarrow's own errors are ValueErrors
        raise RecipeError(f"{path}: {error}; {kind} is needed; check the file") from error


def _check_iterations(path: Path, found: Mapping[int, object]) -> None:
    if not found:
        raise RecipeError(f"{path}: no rows; a row for each prompt of each iteration is needed; check the file")
    missing = next(t for t in range(1, len(found) + 2) if t not in found)
    if missing <= max(found):
        raise RecipeError(
            f"{path}: no rows of iteration {missing}, but of iteration {max(found)}; the alpha-spending budget is spent "
            "iteration by iteration, so all from 1 on are needed; add the rows, or number iterations 1, 2, 3 in order"
        )


def _second_validation_size(path: Path, by_iteration: Mapping[int, Iterable[PromptOutcome]]) -> int:
    """How many prompts the second validation set has. A prompt in both sets would be looked at twice and counted as two."""
    monitor, second_validation = (_prompt_ids(by_iteration.values(), name) for name in _SETS)
    if both := monitor & second_validation:
        raise RecipeError(
            f"{path}: the prompt {min(both)!r:.60} is in the sets validation and second_validation; they are disjoint; keep each "
            "prompt in one of them, in all iterations"
        )
    return len(second_validation)


def _prompt_ids(groups: Iterable[Iterable[PromptOutcome]], name: str) -> set[str]:
    return {row.prompt_id for rows in groups for row in rows if row.set == name}


def _notes(heading: Sequence[str], by_iteration: Mapping[int, Sequence[PromptOutcome]]) -> Iterator[str]:
    unknown = [name or "(no name)" for name in heading if name not in (*REQUIRED, *OPTIONAL)]
    if unknown:
        yield f"columns that are not the monitor's are ignored: {', '.join(unknown)}"
    first = _prompt_ids([by_iteration[1]], "validation")
    other = [t for t in sorted(by_iteration) if _prompt_ids([by_iteration[t]], "validation") != first]
    if other:
        yield (
            f"iteration {other[0]} has other validation prompts than iteration 1: each gain is about its own prompts, and "
            "gains of different iterations compare less well"
        )


def _suggest(found: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of these"
