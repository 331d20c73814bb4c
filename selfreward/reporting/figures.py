"""The plots of the page as inline SVG, one quantity each; `drawing` converts them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from selfreward.records import Interval
from selfreward.reporting.drawing import MUTED, RULE, legend, line_at, render_plot, series
from selfreward.reporting.formatting import model_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_POINTS = 300


@dataclass(frozen=True)
class Curve:
    """One metric over iterations; `points` are (iteration, value) for the iterations in which it was measured."""

    label: str
    points: Sequence[tuple[int, Interval | float]]
    series: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot with its title; `names` are the glossary names of the numbers that it shows."""

    title: str
    svg: Markup
    names: tuple[str, ...]
    note: str = ""


def curves_over_iterations(
    curves: Sequence[Curve],
    *,
    last: int,
    alt: str,
    neutral: float | None = None,
    limits: tuple[float, float] | None = None,
    named: Callable[[int], str] = model_name,
) -> Markup | None:
    """Plot values with error bars over M_0 ... M_last; None without values.

    `neutral` draws a reference line, usually at the null value. `limits` are the ends of the value axis,
    where the number is bounded; `named` formats an iteration for the axis.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return None

    def plot(axes: "Axes") -> None:
        if neutral is not None:
            line_at(axes, neutral)
        for index, curve in enumerate(drawn):
            _error_bars(axes, curve, shift=(index - (len(drawn) - 1) / 2) * 0.12)
        first = min(iteration for curve in drawn for iteration, _ in curve.points)
        _iteration_axis(axes, first, last, named)
        if limits:
            margin = 0.03 * (limits[1] - limits[0])  # so that a point at an end is not clipped
            axes.set_ylim(limits[0] - margin, limits[1] + margin)
        if len(drawn) > 1:
            legend(axes)

    return render_plot(plot, alt=alt)


def _error_bars(axes: "Axes", curve: Curve, *, shift: float) -> None:
    x = [iteration + shift for iteration, _ in curve.points]
    means = [value.mean if isinstance(value, Interval) else value for _, value in curve.points]
    ends = [(v.low, v.high) if isinstance(v, Interval) else (v, v) for _, v in curve.points]
    colour = series(curve.series)
    axes.vlines(x, [low for low, _ in ends], [high for _, high in ends], color=colour, linewidth=1.6)
    axes.plot(x, means, color=colour, linewidth=1.2, marker="o", markersize=4.6, markeredgewidth=0, label=curve.label)


def _iteration_axis(axes: "Axes", first: int, last: int, named: Callable[[int], str]) -> None:
    step = max(1, math.ceil((last - first + 1) / 9))
    ticks = list(range(first, last + 1, step))
    axes.set_xticks(ticks, [named(tick) for tick in ticks])
    axes.set_xlim(first - 0.4, last + 0.4)


_NUM_BINS = 20


@dataclass(frozen=True)
class ScoreAxis:
    """The common axis of a run's histograms, which makes them comparable: the range, and whole numbers or bins."""

    low: float
    high: float
    is_whole: bool

    @property
    def width(self) -> float:
        return 1.0 if self.is_whole else max((self.high - self.low) / _NUM_BINS, 0.01)

    def bars(self, scores: Mapping[float, int]) -> dict[float, float]:
        """Map the position of each bar to its share of the scores."""
        total = sum(scores.values())
        bars: dict[float, float] = {}
        for value, count in scores.items():
            bin_number = min(math.floor((value - self.low) / self.width), _NUM_BINS - 1)
            position = value if self.is_whole else self.low + (bin_number + 0.5) * self.width
            bars[position] = bars.get(position, 0.0) + count / total
        return bars


def score_axis(all_scores: Sequence[Mapping[float, int]]) -> ScoreAxis:
    values = {value for scores in all_scores for value in scores} or {0.0}
    low, high = min(values), max(values)
    return ScoreAxis(low, high, high - low <= _NUM_BINS and all(value == round(value) for value in values))


def histogram(bars: Mapping[float, float], *, axis: ScoreAxis, top: float, alt: str) -> Markup:
    """Plot one small histogram; `top` is the largest share in its row of histograms."""

    def plot(axes: "Axes") -> None:
        width = axis.width * 0.85
        axes.bar(list(bars), list(bars.values()), width=width, color=series(1), linewidth=0)
        axes.set_xlim(axis.low - width, axis.high + width)
        axes.set_ylim(0, top * 1.05)
        axes.locator_params(axis="y", nbins=4)
        if axis.is_whole and axis.high - axis.low <= 10:
            axes.set_xticks(range(math.floor(axis.low), math.ceil(axis.high) + 1))
        else:
            axes.locator_params(axis="x", nbins=5)

    return render_plot(plot, alt=alt, width=2.4, height=1.5)


@dataclass(frozen=True)
class LengthRange:
    """Quartiles of the lengths in one iteration."""

    iteration: int
    low: float
    median: float
    high: float


def lengths(chosen: Sequence[LengthRange], rejected: Sequence[LengthRange], *, alt: str) -> Markup | None:
    """Plot median and interquartile range of the lengths of chosen and rejected responses, side by side."""
    if not chosen:
        return None

    def plot(axes: "Axes") -> None:
        for label, ranges, index, shift in (("chosen", chosen, 1, -0.1), ("rejected", rejected, 2, 0.1)):
            x = [r.iteration + shift for r in ranges]
            colour = series(index)
            axes.vlines(x, [r.low for r in ranges], [r.high for r in ranges], color=colour, linewidth=5, alpha=0.45)
            axes.plot(
                x, [r.median for r in ranges], color=colour, linestyle="", marker="o", markersize=5.5,
                markeredgewidth=0, label=label,
            )  # fmt: skip
        last = max(r.iteration for r in chosen)
        _iteration_axis(axes, min(r.iteration for r in chosen), last, str)
        # Space above, because all lengths may be at the token limit; 1 when all responses are empty.
        axes.set_ylim(0, max(1.0, 1.08 * max(r.high for r in (*chosen, *rejected))))
        legend(axes)

    return render_plot(plot, alt=alt)


@dataclass(frozen=True)
class StepSeries:
    """A value for each optimizer step of one iteration, in order."""

    iteration: int
    values: Sequence[float]


def over_steps(parts: Sequence[StepSeries], *, alt: str, neutral: float | None = None) -> Markup | None:
    """Plot one line for each iteration, end to end; long lines show the means of equal blocks of steps."""
    parts = [part for part in parts if part.values]
    total = sum(len(part.values) for part in parts)
    if not total:
        return None
    block = math.ceil(total / MAX_POINTS)

    def plot(axes: "Axes") -> None:
        if neutral is not None:
            line_at(axes, neutral)
        start = 0
        labelled = max(1, math.ceil(len(parts) / 8))
        for index, part in enumerate(parts):
            x, y = _blocks(part.values, block)
            axes.plot([start + i for i in x], y, color=series(1), linewidth=1.4, marker="o" if len(y) < 25 else "",
                      markersize=3, markeredgewidth=0)  # fmt: skip
            if index:
                axes.axvline(start + 0.5, color=RULE, linewidth=1)
            if index % labelled == 0:
                axes.text(
                    start + (len(part.values) + 1) / 2, 1.0, model_name(part.iteration), color=MUTED, ha="center",
                    va="bottom", transform=axes.get_xaxis_transform(),
                )  # fmt: skip
            start += len(part.values)
        axes.set_xlim(0.5 - 0.01 * total, total + 0.5 + 0.01 * total)
        axes.locator_params(axis="x", nbins=7, integer=True)

    return render_plot(plot, alt=alt)


def _blocks(values: Sequence[float], size: int) -> tuple[list[float], list[float]]:
    starts = range(0, len(values), size)
    chunks = [values[start : start + size] for start in starts]
    x = [start + (len(chunk) + 1) / 2 for start, chunk in zip(starts, chunks, strict=True)]
    return x, [sum(chunk) / len(chunk) for chunk in chunks]


def stacked_seconds(rows: Sequence[tuple[str, Mapping[str, float]]], order: Mapping[str, int], *, alt: str) -> Markup:
    """Plot one bar for each row (iteration), its stages end to end; `order` maps each stage to its series colour."""

    def plot(axes: "Axes") -> None:
        longest = max((sum(stages.values()) for _, stages in rows), default=0.0)
        unit = 3600.0 if longest >= 7200 else 60.0 if longest >= 180 else 1.0
        for row, (_, stages) in enumerate(rows):
            left = 0.0
            for stage, index in order.items():
                length = stages.get(stage, 0.0) / unit
                if length > 0:
                    axes.barh(row, length, left=left, height=0.62, color=series(index), linewidth=0)
                left += length
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel({3600.0: "hours", 60.0: "minutes", 1.0: "seconds"}[unit], color=MUTED)
        axes.grid(axis="x", color=RULE, linewidth=1)
        axes.grid(axis="y", visible=False)

    return render_plot(plot, alt=alt, height=0.75 + 0.24 * len(rows))


@dataclass(frozen=True)
class Estimate:
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ForestRow:
    """One iteration: its gain by the anchor and by the run's own judge, and the decision."""

    label: str
    decision: str
    anchor: Estimate | None
    own: Estimate | None = None


def forest(rows: Sequence[ForestRow], *, delta: float, alt: str) -> Markup | None:
    """Plot gains with their bounds, one row per iteration, with reference lines at 0 and `delta`."""
    found = [estimate for row in rows for estimate in (row.anchor, row.own) if estimate]
    if not found:
        return None

    def plot(axes: "Axes") -> None:
        axes.axvline(0.0, color=MUTED, linewidth=1)
        axes.axvline(delta, color=MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for name, label, index, shift in (("anchor", "by the anchor", 1, 0.0), ("own", "by the own judge", 2, 0.26)):
            drawn = [(y + shift, getattr(row, name)) for y, row in enumerate(rows) if getattr(row, name)]
            if not drawn:
                continue
            heights, estimates = zip(*drawn, strict=True)
            axes.hlines(heights, [e.low for e in estimates], [e.high for e in estimates], color=series(index),
                        linewidth=2.4 if name == "anchor" else 1.2)  # fmt: skip
            axes.plot([e.mean for e in estimates], heights, color=series(index), linestyle="", marker="o",
                      markersize=6 if name == "anchor" else 3.6, markeredgewidth=0, label=label)  # fmt: skip
        for y, row in enumerate(rows):
            axes.text(1.02, y, row.decision, color=MUTED, va="center", transform=axes.get_yaxis_transform())
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        low, high = min(0.0, *(e.low for e in found)), max(delta, *(e.high for e in found))
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
        axes.grid(axis="x", color=RULE, linewidth=1)
        axes.grid(axis="y", visible=False)
        legend(axes)

    return render_plot(plot, alt=alt, width=5.4, height=0.6 + 0.3 * len(rows))


@dataclass(frozen=True)
class GainSeries:
    """Cumulative gains by one judge: (distance from M_0, gain with its interval) for each checkpoint."""

    label: str
    points: Sequence[tuple[float, Interval]]
    series: int


def gains_by_distance(
    gains: Sequence[GainSeries],
    *,
    alt: str,
    curve: tuple[Sequence[float], Sequence[float]] | None = None,
    band: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Markup | None:
    """Plot gains against distance; `curve` is a fitted line (x, y), `band` its lower and upper ends at the same x."""
    shown = [one for one in gains if one.points]
    if not shown:
        return None

    def plot(axes: "Axes") -> None:
        line_at(axes, 0.0, dashed=False)
        if curve and band:
            axes.fill_between(curve[0], *band, color=series(1), alpha=0.13, linewidth=0)
        if curve:
            axes.plot(*curve, color=series(1), linewidth=1.2, linestyle=(0, (4, 2)))
        reach = max(d for one in shown for d, _ in one.points) or 1.0
        for index, one in enumerate(shown):
            x = [d + (index - (len(shown) - 1) / 2) * 0.012 * reach for d, _ in one.points]
            colour = series(one.series)
            axes.vlines(x, [v.low for _, v in one.points], [v.high for _, v in one.points], color=colour, linewidth=1.6)
            axes.plot(x, [v.mean for _, v in one.points], color=colour, linestyle="", marker="o", markersize=5,
                      markeredgewidth=0, label=one.label)  # fmt: skip
        axes.set_xlim(-0.04 * reach, 1.06 * reach)
        axes.set_xlabel("distance from M₀, square root of nats", color=MUTED)
        legend(axes)

    return render_plot(plot, alt=alt, width=5.4, height=2.9)
