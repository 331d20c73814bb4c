"""report.html: one self-contained page for the run. This module selects the content; templates/ set its form."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selfreward.recipe import Recipe
from selfreward.records import Decision, Evaluation, IterationSummary
from selfreward.reporting import figures, funnel, provenance, timing
from selfreward.reporting.decisions import data_split_guarantees, decision_section, test_section
from selfreward.reporting.figures import Figure
from selfreward.reporting.findings import findings
from selfreward.reporting.formatting import amount, duration, model_name
from selfreward.reporting.gains import gains_figure
from selfreward.reporting.glossary import groups
from selfreward.reporting.gpu_hours import gpu_hours, num_gpus
from selfreward.reporting.judge_card import judge_section
from selfreward.reporting.measurements import (
    Cell,
    about_intervals,
    cell_of,
    measured_names,
    not_measured,
    plain_cell,
    points,
)
from selfreward.reporting.record_summary import RecordSummary, quantile
from selfreward.reporting.remarks import remarks
from selfreward.reporting.samples import SamplePair
from selfreward.reporting.templating import render, stylesheet
from selfreward.reporting.text import one_line

TRAINING_SCALARS = (
    "training.num_pairs", "num_pairs_available", "num_epochs", "num_steps", "loss_first", "loss_last",
    "reward_margin_before", "reward_margin_after", "chosen_logp_move", "rejected_logp_move",
    "reward_accuracy_vs_pairs", "grad_norm_mean", "grad_norm_max", "changed_weight_share", "seen_update_share",
    "num_tokens",
    "num_computed_tokens", "tokens_per_s", "seconds_update", "reference_gap_margin", "reference_gap_limit",
    "reference_gap_nats", "reference_gap_bias_nats", "num_reference_gap_pairs", "num_sampler_logprobs",
    "num_trainer_logprobs", "num_unusable_logprobs",
)  # fmt: skip
PAIR_NUMBERS = ("margin", "chosen_tokens", "rejected_tokens", "chosen_longer_rate")
_MAX_HISTOGRAMS = 8
_MAX_SAMPLED_ITERATIONS = 10
_MAX_TIME_BARS = 30


@dataclass(frozen=True)
class ReportData:
    """The input of all pages. `history`, `decisions` and `record_summaries` cover iterations 1..t.

    `test_set` is the evaluation on the test set and the iteration of its checkpoint; None before it was evaluated.
    """

    manifest: Mapping[str, Any]
    banner: str | None
    initial: Evaluation | None
    initial_cost: IterationSummary | None
    history: Sequence[IterationSummary]
    decisions: Mapping[int, Decision]
    record_summaries: Mapping[int, RecordSummary]
    recipe: Recipe
    recipe_text: str
    test_set: tuple[Evaluation, int] | None = None

    @property
    def num_gpus(self) -> int:
        return num_gpus(self.manifest, self.recipe)

    @property
    def last_decision(self) -> Decision | None:
        return self.decisions[max(self.decisions)] if self.decisions else None

    @property
    def evaluations(self) -> list[Evaluation]:
        """All evaluations, with M_0 first when it was measured."""
        return [*([self.initial] if self.initial else []), *(s.evaluation for s in self.history)]


def page(run: ReportData) -> str:
    """Return the complete page."""
    funnels = [funnel.funnel_of(summary) for summary in run.history]
    bars = funnel.bars(funnels)
    curves = _curves(run)
    return render(
        "report.html.j2",
        css=stylesheet(),
        name=run.manifest.get("name", ""),
        created_at=run.manifest.get("created_at", ""),
        banner=run.banner,
        findings=[_typeset(finding) for finding in findings(run.history)],
        decision=run.last_decision,
        clauses=_clauses(run.last_decision),
        decisions=run.decisions,
        monitor=decision_section(run.history, run.decisions, settings=run.recipe.monitor),
        test_set=test_section(run.test_set),
        data=data_split_guarantees(run.manifest),
        gains=gains_figure(run.evaluations),
        tiles=_tiles(run),
        rows=_rows(run),
        about_intervals=about_intervals(run.evaluations),
        not_measured=not_measured(run.evaluations),
        measurements=_measurements(run),
        curves=[figure for _, figure in curves if figure],
        curves_missing=[title for title, figure in curves if not figure],
        judge=judge_section(run.history, judging=run.recipe.judging),
        histograms=_histograms(run),
        pair_numbers=PAIR_NUMBERS,
        pair_table=_pair_table(run),
        length_figure=_length_figure(run),
        funnels=funnels,
        funnel_bars=bars,
        funnel_legend=funnel.legend(bars),
        funnel_table=funnel.table(funnels),
        training_figures=_training_figures(run),
        training_table=_training_table(run),
        training_remarks=remarks(run.history, training=run.recipe.training),
        **_time(run),
        samples=_samples(run),
        reproducibility=provenance.reproducibility(run.manifest),
        provenance=provenance.sections(run.manifest),
        files=provenance.files(run.manifest),
        events=provenance.events(run.manifest),
        recipe=provenance.recipe(run.recipe_text),
        groups=groups(),
    )


def _clauses(decision: Decision | None) -> list[str]:
    """Split the decision's reason into one sentence per clause, so that the page can emphasise the first."""
    if decision is None:
        return []
    clauses = [c.rstrip(".") for c in one_line(decision.reason, 900).split("; ")]
    return [f"{clause[:1].upper()}{clause[1:]}." for clause in map(_typeset, clauses)]


def _typeset(text: str) -> str:
    """Return the text with M₁ for M_1."""
    return re.sub(r"\bM_(\d+)\b", lambda found: model_name(int(found[1])), text)


def _tiles(run: ReportData) -> list[tuple[str, Cell, str]]:
    """Return (label, number, remark) of the headline numbers of the checkpoint to use."""
    if not run.history:
        return []
    best = run.last_decision.best_iteration if run.last_decision else 0
    shown = best if 1 <= best <= len(run.history) else len(run.history)
    name = model_name(shown)
    evaluation = run.history[shown - 1].evaluation
    before = cell_of(run.initial, "pass_rate")
    greedy_before, greedy_after = (cell_of(e, "greedy_pass_rate") for e in (run.initial, evaluation))
    greedy = (
        f"; greedy {greedy_after.text}, {model_name(0)}: {greedy_before.text}" if greedy_after.mean is not None else ""
    )
    gained = cell_of(evaluation, "win_rate_vs_initial")
    neutral = "0.5: no difference"
    about_gain = f"not measured: {one_line(gained.reason, 120)}" if gained.reason and not gained.is_invalid else neutral
    num_pairs = sum(summary.counts.get("num_pairs", 0) for summary in run.history)
    seconds = sum(sum(s.seconds_by_stage.values()) for s in [*run.history, *_as_list(run.initial_cost)])
    num_iterations = len(run.history)
    return [
        (f"Win rate of {name} vs {model_name(0)}", gained, about_gain),
        (f"Pass rate of {name}", cell_of(evaluation, "pass_rate"), f"{model_name(0)}: {before.text}{greedy}"),
        ("Pairs, total", plain_cell("num_pairs", num_pairs), _plural(num_iterations, "iteration")),
        ("Time, total", Cell("seconds", duration(seconds)), _about_time(run, seconds)),
    ]


def _about_time(run: ReportData, seconds: float) -> str:
    if not run.num_gpus:
        return "working time, without pauses"
    hours = amount("gpu_hours", gpu_hours(seconds, run.num_gpus))
    return f"working time, without pauses; {hours} GPU-hours on {_plural(run.num_gpus, 'GPU')}"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _as_list(summary: IterationSummary | None) -> list[IterationSummary]:
    return [summary] if summary else []


def _rows(run: ReportData) -> list[dict[str, Any]]:
    """Return the rows of the table of iterations, M_0 first."""
    measured = ("win_rate_vs_previous", "win_rate_vs_initial", "pass_rate", "response_tokens", "kl_initial_nats")
    rows = []
    if run.initial:
        nothing = [Cell(name, "") for name in ("num_pairs", "unscored_rate", *measured[:2])]
        cells = [*nothing, *(cell_of(run.initial, name) for name in measured[2:4]), Cell("kl_initial_nats", "")]
        rows.append({"iteration": 0, "cells": cells, "decision": None})
    for summary in run.history:
        counts = summary.counts
        num_judgments = counts.get("num_judgments", 0)
        unscored = counts.get("num_unscored_judgments", 0) / num_judgments if num_judgments else None
        cells = [plain_cell("num_pairs", counts.get("num_pairs")), plain_cell("unscored_rate", unscored)]
        cells += [cell_of(summary.evaluation, name) for name in measured]
        rows.append({"iteration": summary.iteration, "cells": cells, "decision": run.decisions.get(summary.iteration)})
    return rows


def _measurements(run: ReportData) -> dict[str, Any]:
    evaluations = run.evaluations
    names = measured_names(evaluations)
    return {
        "columns": [e.iteration for e in evaluations],
        "rows": [(name, [cell_of(e, name) for e in evaluations]) for name in names],
    }


def _curves(run: ReportData) -> list[tuple[str, Figure | None]]:
    """Return (title, plot) of each curve; the plot is None without a valid measurement."""
    evaluations = run.evaluations
    last = len(run.history)

    def curve(
        title: str, *lines: tuple[str, str], neutral: float | None = None, note: str = ""
    ) -> tuple[str, Figure | None]:
        curves = [
            figures.Curve(label, points(evaluations, name), series)
            for series, (name, label) in enumerate(lines, start=1)
        ]
        svg = figures.curves_over_iterations(
            curves, last=last, neutral=neutral, alt=f"{title}, by iteration", named=lambda t: _with_decision(run, t)
        )
        return title, Figure(title, svg, tuple(name for name, _ in lines), note) if svg else None

    pass_rates = [("pass_rate", "pass rate"), ("greedy_pass_rate", "greedy")]
    pass_rates = [line for line in pass_rates if points(evaluations, line[0])] or pass_rates[:1]
    win_rates = (("win_rate_vs_initial", "vs M₀"), ("win_rate_vs_previous", "vs previous"))
    distances = (("kl_initial_nats", "to M₀"), ("kl_previous_nats", "to previous"))
    return [
        curve("Pass rate", *pass_rates),
        curve("Win rate", *win_rates, neutral=0.5, note="Dashed: 0.5, no difference."),
        curve("Response length, tokens", ("response_tokens", "tokens")),
        curve("Distance from M₀ and from the previous model, nats", *distances, neutral=0.0),
    ]


def _with_decision(run: ReportData, iteration: int) -> str:
    """Return the name of a model, and below it the decision on it where there is room."""
    decision = run.decisions.get(iteration)
    return (
        f"{model_name(iteration)}\n{decision.decision}" if decision and len(run.history) < 5 else model_name(iteration)
    )


def _histograms(run: ReportData) -> dict[str, Any]:
    found = [(iteration, d) for iteration, d in run.record_summaries.items() if d.scores]
    shown = _evenly_spaced(found, _MAX_HISTOGRAMS)
    axis = figures.score_axis([d.scores for _, d in shown])
    bars = [axis.bars(d.scores) for _, d in shown]
    top = max((share for shares in bars for share in shares.values()), default=1.0)
    figures_made = [
        (
            iteration,
            figures.histogram(shares, axis=axis, top=top, alt=f"Scores in iteration {iteration}"),
            sum(d.scores.values()),
        )
        for (iteration, d), shares in zip(shown, bars, strict=True)
    ]
    return {"figures": figures_made, "num_iterations": len(found)}


def _evenly_spaced(items: Sequence[Any], max_items: int) -> list[Any]:
    """Return all items, or `max_items` of them: the first, the last, and evenly spaced ones between."""
    if len(items) <= max_items:
        return list(items)
    return [items[round(i * (len(items) - 1) / (max_items - 1))] for i in range(max_items)]


def pair_cells(records: RecordSummary) -> list[Cell]:
    """Return the numbers of one iteration's pairs of responses, in the order of PAIR_NUMBERS."""
    num = records.num_response_pairs
    cells = [plain_cell("margin", records.margin_sum / num if num else None)]
    for name, counts in (("chosen_tokens", records.chosen_tokens), ("rejected_tokens", records.rejected_tokens)):
        low, middle, high = (quantile(counts, share) for share in (0.25, 0.5, 0.75))
        ends = f"{amount('num_tokens', low)} to {amount('num_tokens', high)}" if num else ""
        cells.append(Cell(name, amount("num_tokens", middle), bounds=ends))
    cells.append(plain_cell("chosen_longer_rate", records.num_chosen_longer / num if num else None))
    return cells


def _pair_table(run: ReportData) -> list[tuple[int, list[Cell]]]:
    return [(iteration, pair_cells(records)) for iteration, records in run.record_summaries.items()]


def _length_figure(run: ReportData) -> Figure | None:
    def ranges(side: str) -> list[figures.LengthRange]:
        found = [
            (iteration, getattr(read, side))
            for iteration, read in run.record_summaries.items()
            if read.num_response_pairs
        ]
        return [figures.LengthRange(i, *(quantile(counts, at) for at in (0.25, 0.5, 0.75))) for i, counts in found]

    svg = figures.lengths(
        ranges("chosen_tokens"), ranges("rejected_tokens"), alt="Lengths of chosen and rejected responses"
    )
    note = "Dot: median. Bar: interquartile range over pairs."
    return Figure("Length of the pairs, tokens", svg, ("chosen_tokens", "rejected_tokens"), note) if svg else None


def _training_figures(run: ReportData) -> list[Figure]:
    def series(name: str) -> list[figures.StepSeries]:
        return [
            figures.StepSeries(
                s.iteration, [v for step in s.training.get("steps", ()) if (v := _finite(step.get(name))) is not None]
            )
            for s in run.history
        ]

    made = []
    for name, title, neutral in (("loss", "Loss per step", None), ("reward_margin", "Reward margin per step", 0.0)):
        parts = series(name)
        svg = figures.over_steps(parts, alt=f"{title}, iterations one after the other", neutral=neutral)
        num_steps = sum(len(part.values) for part in parts)
        block = math.ceil(num_steps / figures.MAX_POINTS)
        note = f"Each point is the mean of {block} steps." if block > 1 else ""
        if svg:
            made.append(Figure(title, svg, (name,), note))
    return made


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _training_table(run: ReportData) -> list[tuple[str, list[str]]]:
    """Return the numbers that any iteration has, known names first; series over steps are left out."""
    known = [name for name in TRAINING_SCALARS if any(training_key(name) in s.training for s in run.history)]
    shown_elsewhere = {training_key(name) for name in TRAINING_SCALARS} | {"seconds"}
    others = sorted(
        {key for s in run.history for key, v in s.training.items() if _finite(v) is not None} - shown_elsewhere
    )
    return [
        (name, [amount(name, _finite(s.training.get(training_key(name)))) for s in run.history])
        for name in [*known, *others]
    ]


def training_key(name: str) -> str:
    """Return a number's key in the trainer's metrics; the glossary adds a prefix where the funnel has the same name."""
    return name.removeprefix("training.")


def _time(run: ReportData) -> dict[str, Any]:
    costed = [*_as_list(run.initial_cost), *run.history]
    stages = timing.costs([*run.history, *_as_list(run.initial_cost)])  # in the order of an iteration
    shown = costed[-_MAX_TIME_BARS:]
    rows = [
        (model_name(0) if summary.iteration == 0 else f"Iteration {summary.iteration}", bar)
        for summary, bar in zip(shown, timing.bars(shown, stages), strict=True)
    ]
    colours = timing.colours(stages)
    return {
        "time_figure": figures.stacked_seconds(rows, colours, alt="Time by stage and iteration") if stages else None,
        "time_note": f"The last {len(shown)} of {len(costed)} iterations are shown."
        if len(shown) < len(costed)
        else "",
        "time_includes_initial": run.initial_cost is not None,
        "stages": stages,
        "total_seconds": sum(cost.seconds for cost in stages if cost.depth == 0),
        "num_gpus": run.num_gpus,
        "gpu_hours": gpu_hours,
    }


def _samples(run: ReportData) -> dict[str, Any]:
    found: list[tuple[int, tuple[SamplePair, ...], int]] = [
        (iteration, records.samples, records.num_pairs)
        for iteration, records in run.record_summaries.items()
        if records.samples
    ]
    shown = found[-_MAX_SAMPLED_ITERATIONS:]
    return {"iterations": shown, "num_left_out": len(found) - len(shown)}
