"""Reader for a table of outcomes by prompt from any trainer, as evidence for the monitor.

CSV with a header, or Parquet with the same columns (`REQUIRED`, `OPTIONAL`; docs/monitor.md describes them). A row is
the outcome of one held-out prompt in one iteration; rows of one prompt in one iteration are averaged, because the
prompt is the unit. A missing outcome is a blank cell or one of the words that tables use, such as NA: the prompt is
unscored.

A row with only a verifiable outcome was not compared by the anchor. If the best checkpoint so far is not M_{t-1}, M_t
can replace it only with rows against it. Other columns are ignored and listed in the notes.
"""

import difflib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.monitoring.evidence import Evidence, tabulate
from selfreward.monitoring.table_files import Cells, listed, read_rows, readable
from selfreward.recipe.renamed import OUTCOME_SETS
from selfreward.records import PromptOutcome

REQUIRED = ("iteration", "prompt_id", "anchor_outcome")
OPTIONAL = ("self_outcome", "verifiable_outcome", "length_delta_tokens", "set", "against")
_SETS = ("validation", "second_validation")
_SHOWN_DEFECTS = 5

_MAX_ITERATION = 10**6
_ITERATIONS = f"iterations are integers, 1 to {_MAX_ITERATION:,}"

# As pandas, R, spreadsheets and databases write a missing value; any capitals.
_MISSING = {"", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "(null)", "\\n", "none"}
_MISSING |= {"-", ".", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"}


@dataclass(frozen=True)
class OutcomeTable:
    """`evidence` of iterations 1..T in order; `notes` are sentences on findings that are not errors."""

    evidence: tuple[Evidence, ...]
    notes: tuple[str, ...]


class _InvalidRow(Exception):
    """An error in a row, with the message: what was found; what is allowed; what to do."""


def read_table(path: Path) -> OutcomeTable:
    """Read a table. Raises RecipeError, which gives the file and the row."""
    by_iteration: defaultdict[int, list[PromptOutcome]] = defaultdict(list)
    defects: list[str] = []
    with readable(path):
        heading, rows = read_rows(path, (*REQUIRED, *OPTIONAL), REQUIRED)
        for where, cells in rows:
            try:
                iteration = _integer(cells, "iteration", _ITERATIONS, low=1, high=_MAX_ITERATION)
                by_iteration[iteration] += _outcomes(cells, iteration)
            except _InvalidRow as error:
                defects.append(f"{where}: {error}")
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
    return OutcomeTable(evidence, tuple(_notes(heading, by_iteration)))


def _outcomes(cells: Cells, iteration: int) -> list[PromptOutcome]:
    prompt_id = _text(cells["prompt_id"])  # "NA" may be an id
    if not prompt_id:
        raise _InvalidRow("prompt_id is blank; each row belongs to a prompt; fill in the prompt's id")
    name = "validation" if _is_blank(cells.get("set")) else _text(cells["set"])
    if name in OUTCOME_SETS:
        raise _InvalidRow(f"set is {name!r}, which was renamed; it is called {OUTCOME_SETS[name]} now; rename it")
    if name not in _SETS:
        raise _InvalidRow(f"set is {name!r:.60}; allowed are {', '.join(_SETS)}; {_suggest(name[:60], _SETS)}")
    against = iteration - 1
    if not _is_blank(cells.get("against")):
        against = _integer(
            cells, "against", f"checkpoints before M_{iteration} are 0 to {against}", low=0, high=against
        )
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


def _integer(cells: Cells, column: str, allowed: str, *, low: int, high: float = math.inf) -> int:
    try:
        number = _float(cells[column])  # tables with missing values contain 2.0 for 2
    except (TypeError, ValueError):
        number = math.nan
    if number.is_integer() and low <= number <= high:
        return int(number)
    found = "blank" if _is_blank(cells[column]) else f"{cells[column]!r:.60}"
    raise _InvalidRow(f"{column} is {found}; {allowed}; fix the cell")


def _outcome(cells: Cells, column: str) -> float | None:
    value = _number(cells, column)
    if value is None or 0 <= value <= 1:
        return value
    raise _InvalidRow(f"{column} is {value:g}; outcomes lie in [0, 1], 0.5 is no difference; fix the cell")


def _number(cells: Cells, column: str) -> float | None:
    cell = cells.get(column)
    if _is_blank(cell):
        return None
    try:
        number = _float(cell)
    except (TypeError, ValueError):
        advice = "use a decimal point, not a comma" if _text(cell).replace(",", "", 1).isdecimal() else "fix the cell"
        raise _InvalidRow(
            f"{column} is {cell!r:.60}; a number, or blank for not measured, is needed; {advice}"
        ) from None
    if not math.isfinite(number):
        raise _InvalidRow(
            f"{column} is {cell!r:.60}; a number is needed; leave the cell blank where nothing was measured"
        )
    return number


def _float(cell: Any) -> float:
    if isinstance(cell, str) and "_" in cell:
        raise ValueError("Python reads 0_5 as 5")
    return float(cell)


def _is_blank(cell: Any) -> bool:
    """Return whether a cell has no value."""
    if isinstance(cell, str):
        return cell.strip().lower() in _MISSING
    return cell is None or (isinstance(cell, float) and math.isnan(cell))


def _text(cell: Any) -> str:
    return str(cell).strip() if isinstance(cell, str) or not _is_blank(cell) else ""


def _check_iterations(path: Path, found: Mapping[int, object]) -> None:
    if not found:
        raise RecipeError(f"{path}: no rows; one row for each prompt of each iteration is needed; check the file")
    missing = next(t for t in range(1, len(found) + 2) if t not in found)
    if missing <= max(found):
        raise RecipeError(
            f"{path}: no rows of iteration {missing}, although there are rows of iteration {max(found)}; the "
            "alpha-spending budget is spent iteration by iteration, so all iterations starting with 1 are needed; add "
            "the rows, or number iterations 1, 2, 3 in order"
        )


def _second_validation_size(path: Path, by_iteration: Mapping[int, Iterable[PromptOutcome]]) -> int:
    """Return the size of the second validation set. A prompt in both sets is refused, as it would be counted twice."""
    validation, second_validation = (_prompt_ids(by_iteration.values(), name) for name in _SETS)
    if both := validation & second_validation:
        raise RecipeError(
            f"{path}: the prompt {min(both)!r:.60} is in the sets validation and second_validation; they must be "
            "disjoint; put each prompt in one of them, in all iterations"
        )
    return len(second_validation)


def _prompt_ids(groups: Iterable[Iterable[PromptOutcome]], name: str) -> set[str]:
    return {row.prompt_id for rows in groups for row in rows if row.set == name}


def _notes(heading: Sequence[str], by_iteration: Mapping[int, Sequence[PromptOutcome]]) -> Iterator[str]:
    unknown = [name or "(no name)" for name in heading if name not in (*REQUIRED, *OPTIONAL)]
    if unknown:
        yield f"columns that the monitor does not use are ignored: {listed(unknown)}"
    first = _prompt_ids([by_iteration[1]], "validation")
    other = [t for t in sorted(by_iteration) if _prompt_ids([by_iteration[t]], "validation") != first]
    if other:
        yield (
            f"iteration {other[0]} and iteration 1 have different validation prompts: each gain is measured on its own "
            "prompts, and gains of different iterations are less comparable"
        )


def _suggest(found: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(found, allowed, n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of these"
