"""The section "Judge quality": the measurements of each iteration's judge, and two plots."""

from collections.abc import Sequence
from typing import Any

from selfreward.recipe import JudgingSection
from selfreward.records import Evaluation, IterationSummary
from selfreward.reporting import figures
from selfreward.reporting.figures import Figure
from selfreward.reporting.formatting import iterations
from selfreward.reporting.judge_remarks import LOW_RELIABILITY, judge_remarks
from selfreward.reporting.measurements import about_intervals, cell_of, measured_names, not_measured, points

# A judge whose scores concentrate at the top becomes less reliable, so the two numbers are plotted side by side.
# Number, title, reference line, note.
_FIGURES: tuple[tuple[str, str, float | None, str], ...] = (
    (
        "judge_reliability",
        "Reliability of the judge, r",
        LOW_RELIABILITY,
        f"Dashed: {LOW_RELIABILITY}; below it, pairs are mostly noise.",
    ),
    (
        "judge_top_score_rate",
        "Scores at the top of the scale, share",
        None,
        "Towards 1 the judge no longer distinguishes responses.",
    ),
)


def judge_section(history: Sequence[IterationSummary], *, judging: JudgingSection) -> dict[str, Any]:
    """Return what the templates show of these iterations; each of `rows` has one cell per column."""
    judgings = [summary.judging for summary in history if summary.judging is not None]
    return {
        "columns": [found.iteration for found in judgings],
        "rows": [(name, [cell_of(found, name) for found in judgings]) for name in measured_names(judgings)],
        "not_measured": not_measured(judgings, named=iterations),
        "about_intervals": about_intervals(judgings, over="prompts"),
        "remarks": judge_remarks(history, judging=judging),
        "figures": _figures(judgings),
    }


def _figures(judgings: Sequence[Evaluation]) -> list[Figure]:
    made = []
    for name, title, line, note in _FIGURES:
        curve = figures.Curve(title, points(judgings, name))
        svg = figures.curves_over_iterations(
            [curve], last=judgings[-1].iteration if judgings else 0, alt=f"{title}, by iteration", neutral=line,
            limits=(0.0, 1.0), named=str,
        )  # fmt: skip
        if svg:
            made.append(Figure(title, svg, (name,), note))
    return made
