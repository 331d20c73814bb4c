"""`selfreward monitor`: repeat the decisions on a finished or running run, or decide on a table of any trainer.

Nothing is generated or judged: the command uses the stored outcomes by prompt, so other settings can be tried quickly.
"""

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from selfreward import history
from selfreward.errors import RecipeError, StoreError
from selfreward.monitoring.ceiling import JUDGE_SETTINGS, RUN_SETTINGS, settings_of
from selfreward.monitoring.decide import decide_all
from selfreward.monitoring.evidence import evidence_of
from selfreward.monitoring.table import read_table
from selfreward.recipe import MonitorSection
from selfreward.records import Decision
from selfreward.store import Store

_COLUMNS = 88
_ENTRY = (
    "iteration",
    "decision",
    "reason",
    "stopped_by",
    "best_iteration",
    "bounds",
    "alpha_spending",
    "num_analyses",
    "notes",
)


@dataclass(frozen=True)
class MonitorResult:
    """`decisions` are on iterations 1..T, also after a stop; `notes` are about the data."""

    name: str
    settings: MonitorSection
    decisions: tuple[Decision, ...]
    notes: tuple[str, ...] = ()

    @property
    def stop(self) -> Decision | None:
        """The first decision that stops the run."""
        return next((decision for decision in self.decisions if decision.stops), None)

    @property
    def best_iteration(self) -> int:
        """The checkpoint to use, from the stopping decision, or from the last decision without a stop."""
        return (self.stop or self.decisions[-1]).best_iteration


def monitor_table(file: Path, overrides: Sequence[str] = ()) -> MonitorResult:
    """Decide on a table; `overrides` are KEY=VALUE of the recipe's section `monitor`. Raises RecipeError."""
    unused = RUN_SETTINGS | JUDGE_SETTINGS | {"min_position_consistency"}
    settings = settings_of({}, _of_section(overrides), unused=unused, name="override")
    table = read_table(file)
    return MonitorResult(str(file), settings, tuple(decide_all(table.evidence, settings)), table.notes)


def monitor_run(folder: Path, overrides: Sequence[str] = ()) -> MonitorResult:
    """Decide on the finished iterations of a run folder, without changing it. Raises StoreError and RecipeError."""
    if folder.is_file():
        raise RecipeError(f"{folder}: a file; this argument is a run folder; pass a table as --csv {folder}")
    store = Store(folder, write=False)
    recipe = history.stored_recipe(folder)
    settings = settings_of(
        recipe.monitor.model_dump(exclude=set(RUN_SETTINGS)),
        _of_section(overrides),
        unused=RUN_SETTINGS,
        name="override",
    )
    summaries, made, _ = history.read_history(store)
    if not summaries:
        raise StoreError(f"{folder}: no finished iteration yet; a decision needs one; continue the run")
    decisions = decide_all(
        evidence_of(summaries, num_second_validation=recipe.evaluation.second_validation_size), settings
    )
    return MonitorResult(str(folder), settings, tuple(decisions), tuple(_differences(decisions, made)))


def _of_section(overrides: Sequence[str]) -> list[str]:
    """Return overrides without the name of the section, with which a recipe's other commands want them."""
    return [override.removeprefix("monitor.") for override in overrides]


def _differences(now: Iterable[Decision], made: Iterable[Decision]) -> Iterator[str]:
    """Yield notes on where the run itself decided differently, was stopped, or used an intervention."""
    for ours, theirs in zip(now, made, strict=True):
        if ours.decision != theirs.decision:
            yield f"iteration {ours.iteration}: the run itself decided {theirs.decision}"
        if theirs.intervention:
            yield f"iteration {ours.iteration}: the run continued with the intervention {theirs.intervention}"
        elif theirs.stopped_by and theirs.stopped_by != ours.stopped_by:
            yield f"iteration {ours.iteration}: the run itself was stopped by {theirs.stopped_by}"


def as_json(result: MonitorResult) -> str:
    """Return the public JSON format, as strict JSON."""
    decisions = [{key: value for key, value in asdict(d).items() if key in _ENTRY} for d in result.decisions]
    data: dict[str, Any] = {
        "schema": 1,
        "stopped_at": result.stop.iteration if result.stop else None,
        "best_iteration": result.best_iteration,
        "settings": result.settings.model_dump(mode="json", exclude=set(RUN_SETTINGS)),
        "notes": list(result.notes),
        "decisions": [{key: entry[key] for key in _ENTRY} for entry in decisions],
    }
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def render(result: MonitorResult) -> str:
    """Return lines of at most 88 columns; the last line states what to do."""
    stop = result.stop
    lines = [*_heading(result), "", f"{'iteration':>9}  {'decision':12}  {'gain, pp':>12}   bounds           prompts"]
    for decision in result.decisions:
        lines += [*_entry(decision), ""]
        if decision is stop and decision is not result.decisions[-1]:
            lines += [f"{' after the stop ':-^{_COLUMNS}}", ""]
    return "\n".join([*lines, *_wrapped(_outcome(result))])


def _heading(result: MonitorResult) -> list[str]:
    settings = result.settings
    return _wrapped(
        f"{result.name}: a gain of {100 * settings.delta:g} pp is worth an iteration; over {settings.horizon} "
        f"iterations a false stop has a probability of {settings.alpha_stop:g} at most, a false alarm of harm of "
        f"{settings.alpha_harm:g}."
    )


def _entry(decision: Decision) -> list[str]:
    gain = decision.bounds.get("gain_vs_previous")
    numbers = ""
    if gain:
        low, high = (f"{100 * bound:+.1f}" for bound in gain["stop"])
        numbers = f"{100 * gain['mean']:>+12.1f}   {f'{low} to {high}':15}  {gain['num_prompts']:>7,}"
    second = "" if decision.num_analyses == 1 else "  with the second validation set"
    lines = [*_wrapped(decision.reason, indent=11)]
    for note in decision.notes:
        lines += _wrapped(note, indent=11)
    if decision.wants_second_validation:
        lines += _wrapped("The monitor would use the second validation set here; its outcomes are missing.", indent=11)
    return [f"{decision.iteration:>9}  {decision.decision:12}  {numbers}{second}".rstrip(), *lines]


def _outcome(result: MonitorResult) -> str:
    last, best = result.decisions[-1], f"use M_{result.best_iteration}"
    if result.best_iteration == 0:
        best += ", the initial model"
    if result.stop:
        return f"Stop after iteration {result.stop.iteration} by {result.stop.stopped_by}; {best}."
    why = " in mode report_only" if result.settings.mode == "report_only" else ""
    return f"No stop up to iteration {last.iteration}{why}; {best}."


def _wrapped(text: str, *, indent: int = 0) -> list[str]:
    blank = " " * indent
    return textwrap.wrap(
        text, _COLUMNS, initial_indent=blank, subsequent_indent=blank, break_on_hyphens=False, break_long_words=False
    )
