"""Plots as inline SVG: small, one idea each, the same bytes for the same numbers.

Colours are names of CSS variables, so one picture serves the light and the dark page; text stays text.
"""

import hashlib
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from selfreward.records import Interval
from selfreward.reporting.formatting import model_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Matplotlib wants colours, the page wants variables: each stands in for one and is replaced in the SVG.
_STAND_INS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--rule)",
    **{f"#0404{i:02x}": f"var(--series-{i})" for i in range(1, 10)},
}
_INK, _MUTED, _RULE = "#010101", "#020202", "#030303"
MAX_POINTS = 300
_WIDTH, _HEIGHT = 4.4, 2.5  # inches at 100 px each
_FONT_PX = 11


def _series(index: int) -> str:
    return f"#0404{index:02x}"


@dataclass(frozen=True)
class Curve:
    """One measurement over iterations; `points` holds (iteration, value) of those that were measured."""

    label: str
    points: Sequence[tuple[int, Interval | float]]
    series: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot with its title; `names` are the numbers that it shows."""

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
    """Values with error bars over M_0 ... M_last; `neutral` draws a line to read them against, of no difference mostly.

    `limits` are the ends of the axis, where the number has ends; `named` writes an iteration below it.
    """
    drawn = [curve for curve in curves if curve.points]
    if not drawn:
        return None

    def plot(axes: "Axes") -> None:
        if neutral is not None:
            axes.axhline(neutral, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
        for index, curve in enumerate(drawn):
            _error_bars(axes, curve, shift=(index - (len(drawn) - 1) / 2) * 0.12)
        first = min(iteration for curve in drawn for iteration, _ in curve.points)
        _iteration_axis(axes, first, last, named)
        if limits:
            margin = 0.03 * (limits[1] - limits[0])  # so that a point at an end is whole
            axes.set_ylim(limits[0] - margin, limits[1] + margin)
        if len(drawn) > 1:
            _legend(axes)

    return _svg(plot, alt=alt)


def _error_bars(axes: "Axes", curve: Curve, *, shift: float) -> None:
    x = [iteration + shift for iteration, _ in curve.points]
    means = [value.mean if isinstance(value, Interval) else value for _, value in curve.points]
    ends = [(v.low, v.high) if isinstance(v, Interval) else (v, v) for _, v in curve.points]
    colour = _series(curve.series)
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
    """What the histograms of a run share, so that they can be compared: the range, and whole numbers or bins."""

    low: float
    high: float
    is_whole: bool

    @property
    def width(self) -> float:
        return 1.0 if self.is_whole else max((self.high - self.low) / _NUM_BINS, 0.01)

    def bars(self, scores: Mapping[float, int]) -> dict[float, float]:
        """Place of each bar -> its share of the scores."""
        total = sum(scores.values())
        bars: dict[float, float] = {}
        for value, count in scores.items():
            bin_number = min(math.floor((value - self.low) / self.width), _NUM_BINS - 1)
            place = value if self.is_whole else self.low + (bin_number + 0.5) * self.width
            bars[place] = bars.get(place, 0.0) + count / total
        return bars


def score_axis(all_scores: Sequence[Mapping[float, int]]) -> ScoreAxis:
    values = {value for scores in all_scores for value in scores} or {0.0}
    low, high = min(values), max(values)
    return ScoreAxis(low, high, high - low <= _NUM_BINS and all(value == round(value) for value in values))


def histogram(bars: Mapping[float, float], *, axis: ScoreAxis, top: float, alt: str) -> Markup:
    """One small histogram; `top` is the largest share of a row of them."""

    def plot(axes: "Axes") -> None:
        width = axis.width * 0.85
        axes.bar(list(bars), list(bars.values()), width=width, color=_series(1), linewidth=0)
        axes.set_xlim(axis.low - width, axis.high + width)
        axes.set_ylim(0, top * 1.05)
        axes.locator_params(axis="y", nbins=4)
        if axis.is_whole and axis.high - axis.low <= 10:
            axes.set_xticks(range(math.floor(axis.low), math.ceil(axis.high) + 1))
        else:
            axes.locator_params(axis="x", nbins=5)

    return _svg(plot, alt=alt, width=2.4, height=1.5)


@dataclass(frozen=True)
class LengthRange:
    """Quartiles of lengths in one iteration."""

    iteration: int
    low: float
    median: float
    high: float


def lengths(chosen: Sequence[LengthRange], rejected: Sequence[LengthRange], *, alt: str) -> Markup | None:
    """Median and middle half of the lengths of chosen and rejected, side by side."""
    if not chosen:
        return None

    def plot(axes: "Axes") -> None:
        for label, ranges, series, shift in (("chosen", chosen, 1, -0.1), ("rejected", rejected, 2, 0.1)):
            x = [r.iteration + shift for r in ranges]
            colour = _series(series)
            axes.vlines(x, [r.low for r in ranges], [r.high for r in ranges], color=colour, linewidth=5, alpha=0.45)
            axes.plot(
                x, [r.median for r in ranges], color=colour, linestyle="", marker="o", markersize=5.5,
                markeredgewidth=0, label=label,
            )  # fmt: skip
        last = max(r.iteration for r in chosen)
        _iteration_axis(axes, min(r.iteration for r in chosen), last, str)
        # Room above, because all lengths may stand at the token limit; 1 for responses that are all empty.
        axes.set_ylim(0, max(1.0, 1.08 * max(r.high for r in (*chosen, *rejected))))
        _legend(axes)

    return _svg(plot, alt=alt)


@dataclass(frozen=True)
class StepSeries:
    """Values of the optimizer steps of one iteration, in order."""

    iteration: int
    values: Sequence[float]


def over_steps(parts: Sequence[StepSeries], *, alt: str, neutral: float | None = None) -> Markup | None:
    """One line for each iteration, laid end to end; long ones are shown as means of equal blocks of steps."""
    parts = [part for part in parts if part.values]
    total = sum(len(part.values) for part in parts)
    if not total:
        return None
    block = math.ceil(total / MAX_POINTS)

    def plot(axes: "Axes") -> None:
        if neutral is not None:
            axes.axhline(neutral, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
        start = 0
        labelled = max(1, math.ceil(len(parts) / 8))
        for index, part in enumerate(parts):
            x, y = _blocks(part.values, block)
            axes.plot([start + i for i in x], y, color=_series(1), linewidth=1.4, marker="o" if len(y) < 25 else "",
                      markersize=3, markeredgewidth=0)  # fmt: skip
            if index:
                axes.axvline(start + 0.5, color=_RULE, linewidth=1)
            if index % labelled == 0:
                axes.text(
                    start + (len(part.values) + 1) / 2, 1.0, model_name(part.iteration), color=_MUTED, ha="center",
                    va="bottom", transform=axes.get_xaxis_transform(),
                )  # fmt: skip
            start += len(part.values)
        axes.set_xlim(0.5 - 0.01 * total, total + 0.5 + 0.01 * total)
        axes.locator_params(axis="x", nbins=7, integer=True)

    return _svg(plot, alt=alt)


def _blocks(values: Sequence[float], size: int) -> tuple[list[float], list[float]]:
    starts = range(0, len(values), size)
    chunks = [values[start : start + size] for start in starts]
    x = [start + (len(chunk) + 1) / 2 for start, chunk in zip(starts, chunks, strict=True)]
    return x, [sum(chunk) / len(chunk) for chunk in chunks]


def stacked_seconds(rows: Sequence[tuple[str, Mapping[str, float]]], order: Mapping[str, int], *, alt: str) -> Markup:
    """One bar for each row (iteration), its stages end to end; `order` gives each stage its series colour."""

    def plot(axes: "Axes") -> None:
        longest = max((sum(stages.values()) for _, stages in rows), default=0.0)
        unit = 3600.0 if longest >= 7200 else 60.0 if longest >= 180 else 1.0
        for row, (_, stages) in enumerate(rows):
            left = 0.0
            for stage, series in order.items():
                length = stages.get(stage, 0.0) / unit
                if length > 0:
                    axes.barh(row, length, left=left, height=0.62, color=_series(series), linewidth=0)
                left += length
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel({3600.0: "hours", 60.0: "minutes", 1.0: "seconds"}[unit], color=_MUTED)
        axes.grid(axis="x", color=_RULE, linewidth=1)
        axes.grid(axis="y", visible=False)

    return _svg(plot, alt=alt, height=0.75 + 0.24 * len(rows))


def _legend(axes: "Axes") -> None:
    axes.legend(
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False, handlelength=1.2, borderaxespad=0.1,
        columnspacing=1.4, handletextpad=0.5, labelcolor=_INK,
    )  # fmt: skip


def _svg(plot: Callable[["Axes"], None], *, alt: str, width: float = _WIDTH, height: float = _HEIGHT) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    style = {
        "svg.fonttype": "none", "svg.hashsalt": "selfreward", "font.size": _FONT_PX * 0.72,
        "axes.spines.top": False, "axes.spines.right": False, "axes.spines.left": False, "axes.edgecolor": _MUTED,
        "axes.linewidth": 0.8, "axes.labelcolor": _MUTED, "axes.grid": True, "axes.grid.axis": "y",
        "axes.axisbelow": True, "grid.color": _RULE, "grid.linewidth": 0.8, "xtick.color": _MUTED,
        "ytick.color": _MUTED, "xtick.major.size": 0, "ytick.major.size": 0, "legend.fontsize": _FONT_PX * 0.72,
        "text.parse_math": False, "axes.unicode_minus": True, "axes.formatter.useoffset": False,
    }  # fmt: skip
    out = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Canvas(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        axes = figure.subplots()
        axes.patch.set_visible(False)
        plot(axes)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(out.getvalue(), alt)


def _inline(document: str, alt: str) -> Markup:
    """An SVG document as an element of the page: own ids, CSS colours, the page's font, no size of its own."""
    svg = document[document.index("<svg") :].strip()
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\s*<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r" font-family: [^;\"]*;?", "", svg)
    # Ids of several figures meet on one page: those that something refers to get a prefix of their own.
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for stand_in, variable in _STAND_INS.items():
        svg = svg.replace(stand_in, variable)
    box = re.search(r'viewBox="([^"]*)"', svg)
    view_box = box.group(1) if box else ""
    opening = Markup('<svg viewBox="{}" role="img" aria-label="{}">').format(view_box, alt)
    body = re.sub(r"\s+", " ", svg[svg.index(">") + 1 :]).replace("> <", "><").replace("xlink:href", "href")
    # Not escaped again: matplotlib made it, of numbers and labels of our own.
    return opening + Markup(body)
