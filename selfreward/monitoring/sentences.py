"""The decision in one sentence that a person understands, and that says no more than was measured."""

from collections.abc import Mapping, Sequence

from selfreward.monitoring.best import NO_DIFFERENCE, anchor_is_valid, was_trained
from selfreward.records import Evaluation, Interval, IterationSummary


def sentence(
    summary: IterationSummary, reason: str, numbers: Mapping[str, float], *, best: int, gates: Sequence[str]
) -> str:
    """What was decided and why; then, if there was training, what was measured, and which checkpoint to use."""
    parts = [_why(summary.iteration, reason, numbers)]
    if was_trained(summary):
        parts.append(_comparison(summary.evaluation, summary.iteration))
    noted = [_gate(gate, numbers) for gate in gates if gate != reason]
    if noted:
        parts.append(f"noted but not a reason to stop here: {' and '.join(noted)}")
    if best != summary.iteration:
        parts.append(f"use M_{best}" + (", the model the run began with" if best == 0 else ""))
    return "; ".join(parts) + "."


def _why(iteration: int, reason: str, numbers: Mapping[str, float]) -> str:
    match reason:
        case "TOO_MANY_UNSCORED" | "TOO_FEW_PAIRS":
            return f"Stopped in iteration {iteration}: {_gate(reason, numbers)}"
        case "MAX_HOURS":
            return (
                f"Stopped after iteration {iteration}: the run has worked for {numbers['elapsed_hours']:.2f} hours and "
                f"may work for {numbers['max_hours']:g}"
            )
        case "MAX_ITERATIONS":
            return f"Stopped after iteration {iteration}: the recipe asks for {numbers['max_iterations']:.0f}"
        case _:
            return f"Going on after iteration {iteration} of {numbers['max_iterations']:.0f}"


def _gate(gate: str, numbers: Mapping[str, float]) -> str:
    if gate == "TOO_MANY_UNSCORED":
        return (
            f"no verdict could be read in {numbers['unscored_rate']:.0%} of the judgments "
            f"(at most {numbers['max_unscored_rate']:.0%} are allowed)"
        )
    num_pairs = round(numbers["num_pairs"])
    return (
        f"{num_pairs} preference {'pair is' if num_pairs == 1 else 'pairs are'} too few to learn from "
        f"({numbers['min_pairs']:.0f} are asked for)"
    )


def _comparison(evaluation: Evaluation, iteration: int) -> str:
    ours, theirs = f"M_{iteration}", f"M_{iteration - 1}"
    found = [
        text
        for text in (
            _win_rate(evaluation, ours, theirs),
            _pass_rate(evaluation.metrics.get("pass_rate_vs_previous"), theirs),
        )
        if text
    ]
    return ", and ".join(found) if found else f"how {ours} compares with {theirs} was not measured"


def _win_rate(evaluation: Evaluation, ours: str, theirs: str) -> str | None:
    win_rate = evaluation.metrics.get("win_rate_vs_previous")
    if not isinstance(win_rate, Interval):
        return None
    if not anchor_is_valid(evaluation):
        reason = evaluation.not_measured.get("anchor", "it failed its examination").removeprefix("INVALID: ")
        why = " ".join(reason.replace("; ", ", ").split())
        return (
            f"the win rate of {win_rate.mean:.1%} says nothing about {ours}, because the anchor is not usable ({why})"
        )
    measured = f"the anchor preferred {ours} to {theirs} at a rate of {win_rate.mean:.1%} ({_range(win_rate, '.1%')})"
    if win_rate.low > NO_DIFFERENCE["win_rate"]:
        return f"{measured}, a gain"
    if win_rate.high < NO_DIFFERENCE["win_rate"]:
        return f"{measured}, a loss"
    return f"{measured}, so this data cannot tell better from worse"


def _pass_rate(change: Interval | float | None, theirs: str) -> str | None:
    if not isinstance(change, Interval):
        return None
    sign = "a gain" if change.low > 0 else "a loss" if change.high < 0 else "so no change is shown"
    points = Interval(100 * change.mean, 100 * change.low, 100 * change.high, change.num_units, change.level)
    return f"the pass rate moved by {points.mean:+.1f} points against {theirs} ({_range(points, '+.1f')}), {sign}"


def _range(interval: Interval, form: str) -> str:
    low, high = format(interval.low, form), format(interval.high, form)
    return f"{interval.level:.0%} interval {low} to {high}, {interval.num_units} prompts"
