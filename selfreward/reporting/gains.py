"""The over-optimisation figure: gains by the anchor, by the run's own judge and in pass rate, over the KL from M_0.

Paper: 2210.10760 (the axis, and the curve that is fitted to the anchor's gains); see `statistics/overoptimisation.py`.
"""

from collections.abc import Sequence

import numpy as np

from selfreward.records import Evaluation, Interval
from selfreward.reporting import figures
from selfreward.reporting.figures import Figure, GainSeries
from selfreward.reporting.measurements import is_invalid
from selfreward.statistics import overoptimisation

TITLE = "Gain over M₀ by distance from M₀"
# Metric, label, null value (subtracted), colour.
_GAIN_METRICS = (
    ("win_rate_vs_initial", "anchor", 0.5, 1),
    ("self_win_rate_vs_initial", "own judge", 0.5, 2),
    ("pass_rate_vs_initial", "pass rate", 0.0, 3),
)
_KL = "kl_initial_nats"
_Z = 1.959964


def gains_figure(evaluations: Sequence[Evaluation]) -> Figure | None:
    """Return the figure, or None when no checkpoint has both a gain and a distance."""
    chosen, lengths = _chosen_metrics(evaluations)
    gains = [GainSeries(label, _points(evaluations, name, neutral), index) for name, label, neutral, index in chosen]
    curve, band, fit_note = _fitted(gains[0].points)
    svg = figures.gains_by_distance(gains, alt=TITLE, curve=curve, band=band)
    if svg is None:
        return None
    shown = tuple(name for (name, *_), one in zip(chosen, gains, strict=True) if one.points)
    note = (
        "Each point is a checkpoint with its 95 % interval; points further right are further from M₀. Where the gain "
        "by the own judge continues to rise and the anchor's does not, the policy exploits its judge. "
        f"{lengths}{fit_note}"
    )
    return Figure(TITLE, svg, (*shown, _KL), note)


def _chosen_metrics(evaluations: Sequence[Evaluation]) -> tuple[Sequence[tuple[str, str, float, int]], str]:
    """Return the metrics to plot and a note: comparable ones, length-adjusted for both judges or for neither."""
    *win_rates, pass_rate = _GAIN_METRICS
    adjusted = [(f"length_adjusted_{name}", label, neutral, index) for name, label, neutral, index in win_rates]
    num_raw, num_adjusted = (
        [len(_points(evaluations, name, neutral)) for name, _, neutral, _ in names] for names in (win_rates, adjusted)
    )
    if not any(num_raw):
        return _GAIN_METRICS, ""
    if num_adjusted == num_raw:
        return [*adjusted, pass_rate], "Win rates are length-adjusted. "
    return _GAIN_METRICS, "Win rates are not length-adjusted. "


def _points(evaluations: Sequence[Evaluation], name: str, neutral: float) -> list[tuple[float, Interval]]:
    found = []
    for evaluation in evaluations:
        gain, kl = evaluation.metrics.get(name), evaluation.metrics.get(_KL)
        if isinstance(gain, Interval) and kl is not None and not is_invalid(evaluation, name):
            nats = kl.mean if isinstance(kl, Interval) else kl
            change = Interval(gain.mean - neutral, gain.low - neutral, gain.high - neutral, gain.num_units, gain.level)
            if np.isfinite([nats, change.mean, change.low, change.high]).all():
                found.append((overoptimisation.distance(nats), change))
    return found


Line = tuple[list[float], list[float]]


def _fitted(points: Sequence[tuple[float, Interval]]) -> tuple[Line | None, Line | None, str]:
    """Return the curve fitted to the anchor's gains, its band, and a note on both."""
    distances, gains = [d for d, _ in points], [gain.mean for _, gain in points]
    found = overoptimisation.fit(distances, gains)
    if found is None:
        return None, None, ""
    grid = np.linspace(0.0, max(distances), 80)
    errors = [(gain.high - gain.low) / (2 * _Z) for _, gain in points]
    ends = overoptimisation.band(distances, gains, errors, at=grid)
    band = None if ends is None else (ends[0].tolist(), ends[1].tolist())
    peak = found.peak
    if peak is None:
        maximum = "it has no maximum"
    elif peak > 2 * max(distances):
        maximum = "its maximum lies far outside the measured range"
    else:
        maximum = f"its maximum would be at d* = {peak:.2g}"
    note = (
        f"Dashed, descriptive: d (a \u2212 b log d) with a = {_signed(found.a)} and b = {_signed(found.b)}, fitted to "
        f"the anchor's gains; {maximum}. The form is from reinforcement learning against a frozen reward model "
        "(2210.10760), and a few points determine it poorly."
    )
    return (grid.tolist(), found.at(grid).tolist()), band, note


def _signed(value: float) -> str:
    return f"{value:.2g}".replace("-", "\u2212")
