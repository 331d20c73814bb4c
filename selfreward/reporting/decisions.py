"""The section "The monitor's decision": what was tested, what that says, and what the decision cannot say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.recipe import MonitorSection
from selfreward.records import Decision, Evaluation, IterationSummary
from selfreward.reporting import figures
from selfreward.reporting.figures import Figure
from selfreward.reporting.formatting import ABSENT, amount, model_name
from selfreward.reporting.measurements import Cell, cell_of, in_order, not_measured

_MAX_FOREST = 24
_SETS = ("validation", "second_validation", "test", "verifiable", "gold")


@dataclass(frozen=True)
class Row:
    """One test: `stop` and `harm` are the bounds at these two levels, `held_against` the limits, `says` the outcome.

    A test that is decided by one of the two has nothing in the other.
    """

    name: str
    mean: str
    stop: str
    harm: str
    num_prompts: str
    held_against: str
    says: str


def decision_section(
    history: Sequence[IterationSummary], decisions: Mapping[int, Decision], *, settings: MonitorSection
) -> dict[str, Any]:
    """What the templates show of the last decision, and of all of them in a line each."""
    if not decisions:
        return {"last": None}
    last = decisions[max(decisions)]
    summaries = {summary.iteration: summary for summary in history}
    return {
        **about(last, summaries.get(last.iteration), settings),
        "last": last,
        "forest": _forest(decisions, settings),
        "log": [_log_row(decision) for _, decision in sorted(decisions.items())],
    }


def about(decision: Decision, summary: IterationSummary | None, settings: MonitorSection) -> dict[str, Any]:
    """What is said of one decision."""
    return {
        "tests": rows_of(decision.bounds, settings),
        "budget": budget(decision),
        "interventions": list(_interventions(decision, summary)),
    }


# The tests.


def rows_of(bounds: Mapping[str, Mapping[str, Any]], settings: MonitorSection) -> list[Row]:
    """In the order of the glossary; a test that is not known here shows its numbers and no more."""
    names = [name.removeprefix("bounds.") for name in in_order(f"bounds.{name}" for name in bounds)]
    return [_row(name, bounds[name], settings) for name in names]


def _row(name: str, bound: Mapping[str, Any], settings: MonitorSection) -> Row:
    held_against, says = _said(name, bound, settings)
    interval, num_prompts = bound.get("interval"), bound.get("num_prompts")
    return Row(
        name=f"bounds.{name}",
        mean=amount(f"bounds.{name}", _number(bound.get("mean"))),
        stop=f"{_ends(name, interval)}, 95 %" if interval else _ends(name, bound.get("stop")),
        harm=_ends(name, bound.get("harm")),
        num_prompts=ABSENT if num_prompts is None else f"{num_prompts:,}",
        held_against=held_against,
        says=says,
    )


def _said(name: str, bound: Mapping[str, Any], settings: MonitorSection) -> tuple[str, str]:
    """What it is held against, and what it says: of each test what `monitoring/decide.py` asks of it."""
    low, high = _pair(bound.get("stop"))
    harm_low, harm_high = _pair(bound.get("harm"))
    delta = settings.delta
    match name:
        case "gain_vs_previous":
            return f"0 and {_limit(delta)}", _gain(low, high, harm_high, delta)
        case "gain_vs_best":
            return f"0 and {_limit(delta)}", _gain_vs_best(low, high, delta)
        case "raw_gain_vs_previous":
            return "0", "a gain as the responses came" if low > 0 else "no gain is shown as the responses came"
        case "self_gain_vs_previous":
            more, less = f"its own judge sees more than {delta:g}", f"its own judge sees less than {delta:g}"
            return _limit(delta), _open_or(low > delta, more, high < delta, less, "open")
        case "pass_rate_vs_previous":
            return "0", _open_or(low > 0, "more prompts pass", high < 0, "fewer prompts pass", "no change is shown")
        case "pass_rate_vs_best":
            allowed = -settings.max_pass_rate_loss
            mean = _number(bound.get("mean"))
            kept = f"estimated to lose less than {-allowed:g}" if mean > allowed else "not estimated"
            lost = f"estimated to lose {-allowed:g} or more"
            return f"0 and {_limit(allowed)}", _open_or(
                harm_high < 0, "fewer prompts pass", mean <= allowed, lost, kept
            )
        case "gold_accuracy_vs_best":
            limit = -settings.max_gold_loss
            return _limit(limit), "the judge got worse" if harm_high < limit else "the judge is not shown to be worse"
        case "tau":
            return "0", _open_or(
                harm_high < 0, "ranks the other way round", harm_low > 0, "ranks like the judge before", "open"
            )
        case "failing_response_rate":
            less, more = f"less than {delta:g} is left to gain", f"{delta:g} or more is left to gain"
            return f"{2 * delta:g}", _open_or(high < 2 * delta, less, low >= 2 * delta, more, "open")
        case "reliability" | "pair_yield_rate":
            limit = settings.min_reliability if name == "reliability" else settings.min_yield_rate
            low, high = _pair(bound.get("interval"))
            return f"{limit:g}", _open_or(high < limit, "too little", low > limit, "enough", "open")
        case _:
            return ABSENT, ABSENT


def _gain(low: float, high: float, harm_high: float, delta: float) -> str:
    if harm_high < 0:
        return "worse"
    if high < delta:
        return f"a gain, of less than {delta:g}" if low > 0 else f"less than {delta:g}"
    return "a gain" if low > 0 else f"open: neither a gain nor less than {delta:g} is shown"


def _gain_vs_best(low: float, high: float, delta: float) -> str:
    if high < delta:
        return f"better than the best before, by less than {delta:g}" if low > 0 else f"less than {delta:g}"
    return "better than the best before" if low > 0 else "not shown to be better than the best before"


def _open_or(first: bool, said_first: str, second: bool, said_second: str, otherwise: str) -> str:
    return said_first if first else said_second if second else otherwise


def _limit(value: float) -> str:
    return f"{value:+g}".replace("-", "\u2212")


def _ends(name: str, ends: Any) -> str:
    low, high = _pair(ends)
    if math.isnan(low) and math.isnan(high):
        return ""
    return f"{amount(f'bounds.{name}', low)} to {amount(f'bounds.{name}', high)}"


def _pair(ends: Any) -> tuple[float, float]:
    """NaN, with which every comparison is false, where there is no number."""
    low, high = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
    return _number(low), _number(high)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# Budget, interventions, log.


def budget(decision: Decision) -> str:
    """How many looks, and how much of the probability of errors; empty when nothing is known of it."""
    spent = decision.alpha_spending
    if "num_tested_iterations" not in spent or "horizon" not in spent:
        return ""
    parts = [f"{spent['num_tested_iterations']:.0f} of {spent['horizon']:.0f} looks"]
    for name, what in (("stop", "for false stops"), ("harm", "for false alarms of harm")):
        if name in spent and f"{name}_total" in spent:
            parts.append(f"{spent[name]:.3g} of {spent[f'{name}_total']:g} {what}")
    return ", ".join(parts)


def _interventions(decision: Decision, summary: IterationSummary | None) -> Sequence[tuple[str, str, str]]:
    """(what, name, remark): what was in force in this iteration, and what is tried in the next one."""
    rows = []
    effect = decision.effect or {}
    changes = ", ".join(summary.recipe_changes) if summary else ""
    if effect:
        known = {True: "it helped", False: "it did not help"}
        helped = known.get(bool(effect["helped"])) if effect.get("helped") is not None else "whether it helped is open"
        tried_for = f"tried for {effect.get('tried_for')}: {helped}"
        rows.append(("In force in this iteration", str(effect.get("name", "")), f"{tried_for}{_changed(changes)}"))
    elif changes:
        rows.append(("In force in this iteration", "", f"changed: {changes}"))
    if decision.intervention:
        rows.append(("Tried next", decision.intervention, f"for {decision.decision}"))
    return rows


def _changed(changes: str) -> str:
    return f"; changed: {changes}" if changes else ""


def _log_row(decision: Decision) -> dict[str, Any]:
    gain = decision.bounds.get("gain_vs_previous", {})
    spent = decision.alpha_spending.get("stop")
    return {
        "iteration": decision.iteration,
        "decision": decision.decision,
        "stopped_by": decision.stopped_by if decision.stopped_by != decision.decision else "",
        "num_analyses": decision.num_analyses,
        "gain": Cell(
            "bounds.gain_vs_previous",
            amount("bounds.gain_vs_previous", _number(gain.get("mean"))),
            bounds=_ends("gain_vs_previous", gain.get("stop")),
        ),
        "spent": ABSENT if spent is None else f"{spent:.3g}",
        "best": decision.best_iteration,
        "intervention": decision.intervention,
    }


def _forest(decisions: Mapping[int, Decision], settings: MonitorSection) -> Figure | None:
    rows = []
    for iteration, decision in sorted(decisions.items())[-_MAX_FOREST:]:
        anchor, own = (
            figures.Estimate(*numbers)
            if (numbers := _finite_numbers(decision.bounds.get(name, {}))) is not None
            else None
            for name in ("gain_vs_previous", "self_gain_vs_previous")
        )
        rows.append(figures.ForestRow(model_name(iteration), decision.decision, anchor, own))
    svg = figures.forest(
        rows, delta=settings.delta, alt="Gain over the previous model, by iteration, with the bounds of a stop"
    )
    note = (
        f"Bars: bounds at the level of a stop. Solid line: 0; dashed: {settings.delta:g}, the worth of an iteration. "
        "A bar right of the solid line shows a gain; one left of the dashed line, that it is too small."
    )
    title = "Gain over the previous model"
    return Figure(title, svg, ("bounds.gain_vs_previous",), note) if svg else None


def _finite_numbers(bound: Mapping[str, Any]) -> tuple[float, float, float] | None:
    found = (_number(bound.get("mean")), *_pair(bound.get("stop")))
    return found if all(map(math.isfinite, found)) else None


# Data.


def data_split_guarantees(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the held-out sets, and what was promised of them, from the facts of the run."""
    facts = manifest.get("facts", {}).get("prompts", {})
    facts = facts if isinstance(facts, Mapping) else {}
    sizes = [(name, facts[name]["num_prompts"]) for name in _SETS if "num_prompts" in _mapping(facts.get(name))]
    guarantees = facts.get("guarantees", ())
    return {
        "sizes": [(name, f"{size:,}") for name, size in sizes if isinstance(size, int)],
        "guarantees": [str(sentence) for sentence in guarantees] if isinstance(guarantees, list | tuple) else [],
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def test_section(test_set: tuple[Evaluation, int] | None) -> dict[str, Any] | None:
    """The final figures, of the checkpoint that was the best when the run ended."""
    if test_set is None:
        return None
    evaluation, opened_for = test_set
    return {
        "opened_for": opened_for,
        "rows": [(name, cell_of(evaluation, name)) for name in in_order(evaluation.metrics)],
        "not_measured": not_measured([evaluation]),
    }
