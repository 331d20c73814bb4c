"""The section "The monitor's decision": the tests, their outcomes, and the limitations of the decision."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.recipe import MonitorSection
from selfreward.records import Decision, Evaluation, IterationSummary
from selfreward.reporting import figures
from selfreward.reporting.figures import Figure
from selfreward.reporting.formatting import ABSENT, amount, model_name
from selfreward.reporting.measurements import Cell, cell_of, in_glossary_order, not_measured

_MAX_FOREST = 24
_SETS = ("validation", "second_validation", "test", "verifiable", "gold")


@dataclass(frozen=True)
class TestRow:
    """One test: `stop` and `harm` are its bounds at the two levels, `limits` the values that they are compared with.

    A test that uses only one of the two levels has an empty text for the other.
    """

    name: str
    mean: str
    stop: str
    harm: str
    num_prompts: str
    limits: str
    outcome: str


def decision_section(
    history: Sequence[IterationSummary], decisions: Mapping[int, Decision], *, settings: MonitorSection
) -> dict[str, Any]:
    """Return what the templates show: the last decision in detail, and one line for each decision."""
    if not decisions:
        return {"last": None}
    last = decisions[max(decisions)]
    summaries = {summary.iteration: summary for summary in history}
    return {
        **decision_details(last, summaries.get(last.iteration), settings),
        "last": last,
        "forest": _forest(decisions, settings),
        "log": [_log_row(decision) for _, decision in sorted(decisions.items())],
    }


def decision_details(decision: Decision, summary: IterationSummary | None, settings: MonitorSection) -> dict[str, Any]:
    """Return the tests, the alpha spending and the interventions of one decision."""
    return {
        "tests": rows_of(decision.bounds, settings),
        "alpha_spending": alpha_spending_text(decision),
        "interventions": list(_interventions(decision, summary)),
    }


# The tests.


def rows_of(bounds: Mapping[str, Mapping[str, Any]], settings: MonitorSection) -> list[TestRow]:
    """Return the tests in the order of the glossary; a test that is unknown here has numbers but no outcome."""
    names = [name.removeprefix("bounds.") for name in in_glossary_order(f"bounds.{name}" for name in bounds)]
    return [_row(name, bounds[name], settings) for name in names]


def _row(name: str, bound: Mapping[str, Any], settings: MonitorSection) -> TestRow:
    limits, outcome = _limits_and_outcome(name, bound, settings)
    interval, num_prompts = bound.get("interval"), bound.get("num_prompts")
    return TestRow(
        name=f"bounds.{name}",
        mean=amount(f"bounds.{name}", _number(bound.get("mean"))),
        stop=f"{_bounds_text(name, interval)}, 95 %" if interval else _bounds_text(name, bound.get("stop")),
        harm=_bounds_text(name, bound.get("harm")),
        num_prompts=ABSENT if num_prompts is None else f"{num_prompts:,}",
        limits=limits,
        outcome=outcome,
    )


def _limits_and_outcome(name: str, bound: Mapping[str, Any], settings: MonitorSection) -> tuple[str, str]:
    """Return the limits and the outcome in words; the conditions are those of `monitoring/decide.py`."""
    low, high = _both_bounds(bound.get("stop"))
    harm_low, harm_high = _both_bounds(bound.get("harm"))
    delta = settings.delta
    match name:
        case "gain_vs_previous":
            return f"0 and {_limit(delta)}", _gain(low, high, harm_high, delta)
        case "gain_vs_best":
            return f"0 and {_limit(delta)}", _gain_vs_best(low, high, delta)
        case "raw_gain_vs_previous":
            return "0", "a gain without length adjustment" if low > 0 else "no gain shown without length adjustment"
        case "self_gain_vs_previous":
            more, less = f"own judge: a gain above {delta:g}", f"own judge: a gain below {delta:g}"
            return _limit(delta), _choose_text(low > delta, more, high < delta, less, "inconclusive")
        case "pass_rate_vs_previous":
            return "0", _choose_text(low > 0, "more prompts pass", high < 0, "fewer prompts pass", "no change shown")
        case "pass_rate_vs_best":
            allowed = -settings.max_pass_rate_loss
            mean = _number(bound.get("mean"))
            kept = f"estimated loss below {-allowed:g}" if mean > allowed else "no estimate"
            lost = f"estimated loss of {-allowed:g} or more"
            return f"0 and {_limit(allowed)}", _choose_text(
                harm_high < 0, "fewer prompts pass", mean <= allowed, lost, kept
            )
        case "gold_accuracy_vs_best":
            limit = -settings.max_gold_loss
            return _limit(limit), "the judge got worse" if harm_high < limit else "the judge is not shown to be worse"
        case "tau":
            reverse, similar = "ranks in reverse order", "ranks like the previous judge"
            return "0", _choose_text(harm_high < 0, reverse, harm_low > 0, similar, "inconclusive")
        case "failing_response_rate":
            less, more = f"less than {delta:g} left to gain", f"{delta:g} or more left to gain"
            return f"{2 * delta:g}", _choose_text(high < 2 * delta, less, low >= 2 * delta, more, "inconclusive")
        case "reliability" | "pair_yield_rate":
            limit = settings.min_reliability if name == "reliability" else settings.min_yield_rate
            low, high = _both_bounds(bound.get("interval"))
            return f"{limit:g}", _choose_text(
                high < limit, "below the limit", low > limit, "above the limit", "inconclusive"
            )
        case _:
            return ABSENT, ABSENT


def _gain(low: float, high: float, harm_high: float, delta: float) -> str:
    if harm_high < 0:
        return "a loss"
    if high < delta:
        return f"a gain, but below {delta:g}" if low > 0 else f"below {delta:g}"
    return "a gain" if low > 0 else f"inconclusive: shown neither above 0 nor below {delta:g}"


def _gain_vs_best(low: float, high: float, delta: float) -> str:
    if high < delta:
        return f"better than the best earlier model, but by less than {delta:g}" if low > 0 else f"below {delta:g}"
    return "better than the best earlier model" if low > 0 else "not shown to be better than the best earlier model"


def _choose_text(first: bool, first_text: str, second: bool, second_text: str, otherwise: str) -> str:
    return first_text if first else second_text if second else otherwise


def _limit(value: float) -> str:
    return f"{value:+g}".replace("-", "\u2212")


def _bounds_text(name: str, ends: Any) -> str:
    low, high = _both_bounds(ends)
    if math.isnan(low) and math.isnan(high):
        return ""
    return f"{amount(f'bounds.{name}', low)} to {amount(f'bounds.{name}', high)}"


def _both_bounds(ends: Any) -> tuple[float, float]:
    """Return both ends, with NaN for a missing number: every comparison with NaN is false."""
    low, high = ends if isinstance(ends, list | tuple) and len(ends) == 2 else (None, None)
    return _number(low), _number(high)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


# Alpha spending, interventions, log.


def alpha_spending_text(decision: Decision) -> str:
    """Return the number of interim analyses and the error probabilities spent so far; empty when they are unknown."""
    spent = decision.alpha_spending
    if "num_tested_iterations" not in spent or "horizon" not in spent:
        return ""
    parts = [f"{spent['num_tested_iterations']:.0f} of {spent['horizon']:.0f} interim analyses"]
    for name, what in (("stop", "spent on false stops"), ("harm", "spent on false harm alarms")):
        if name in spent and f"{name}_total" in spent:
            parts.append(f"{spent[name]:.3g} of {spent[f'{name}_total']:g} {what}")
    return ", ".join(parts)


def _interventions(decision: Decision, summary: IterationSummary | None) -> Sequence[tuple[str, str, str]]:
    """Return (what, name, remark) of the intervention active in this iteration and of the one tried next."""
    rows = []
    effect = decision.effect or {}
    changes = ", ".join(summary.recipe_changes) if summary else ""
    if effect:
        known = {True: "it helped", False: "it did not help"}
        helped = known.get(bool(effect["helped"])) if effect.get("helped") is not None else "effect inconclusive"
        tried_for = f"tried for {effect.get('tried_for')}: {helped}"
        rows.append(("Active in this iteration", str(effect.get("name", "")), f"{tried_for}{_changed(changes)}"))
    elif changes:
        rows.append(("Active in this iteration", "", f"changed: {changes}"))
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
            bounds=_bounds_text("gain_vs_previous", gain.get("stop")),
        ),
        "spent": ABSENT if spent is None else f"{spent:.3g}",
        "best": decision.best_iteration,
        "intervention": decision.intervention,
    }


def _forest(decisions: Mapping[int, Decision], settings: MonitorSection) -> Figure | None:
    rows = []
    for iteration, decision in sorted(decisions.items())[-_MAX_FOREST:]:
        anchor, own = (
            figures.Estimate(*ends) if (ends := _finite_estimate(decision.bounds.get(name, {}))) is not None else None
            for name in ("gain_vs_previous", "self_gain_vs_previous")
        )
        rows.append(figures.ForestRow(model_name(iteration), decision.decision, anchor, own))
    svg = figures.forest(
        rows, delta=settings.delta, alt="Gain over the previous model, by iteration, with its stop bounds"
    )
    note = (
        f"Bars: stop bounds. Solid line: 0. Dashed line: monitor.delta = {settings.delta:g}, the smallest gain worth "
        "an iteration. A bar right of the solid line shows a gain; a bar left of the dashed line shows that the gain "
        "is too small."
    )
    title = "Gain over the previous model"
    return Figure(title, svg, ("bounds.gain_vs_previous",), note) if svg else None


def _finite_estimate(bound: Mapping[str, Any]) -> tuple[float, float, float] | None:
    found = (_number(bound.get("mean")), *_both_bounds(bound.get("stop")))
    return found if all(map(math.isfinite, found)) else None


# Data.


def data_split_guarantees(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of the held-out sets and the data-split guarantees, from the facts of the run."""
    facts = manifest.get("facts", {}).get("prompts", {})
    facts = facts if isinstance(facts, Mapping) else {}
    sets = {name: _mapping(facts.get(name)) for name in _SETS}
    # The validation prompts with checks are not a set of their own.
    sizes = [(name, s["num_prompts"]) for name, s in sets.items() if "num_prompts" in s and not s.get("of_validation")]
    guarantees = facts.get("data_split_guarantees", ())
    return {
        "sizes": [(name, f"{size:,}") for name, size in sizes if isinstance(size, int)],
        "data_split_guarantees": [str(sentence) for sentence in guarantees]
        if isinstance(guarantees, list | tuple)
        else [],
    }


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def test_section(test_set: tuple[Evaluation, int] | None) -> dict[str, Any] | None:
    """Return the final results on the test set, for the checkpoint that was the best when the run ended."""
    if test_set is None:
        return None
    evaluation, checkpoint = test_set
    return {
        "checkpoint": checkpoint,
        "rows": [(name, cell_of(evaluation, name)) for name in in_glossary_order(evaluation.metrics)],
        "not_measured": not_measured([evaluation]),
    }
