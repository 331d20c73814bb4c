"""The view of over-optimisation: what the anchor, the run's own judge and checks say, against the distance from M_0.

Paper: 2210.10760 (the axis, and the curve that is fitted to the anchor's gains); see `statistics/overoptimisation.py`.
"""

from collections.abc import Sequence

import numpy as np

from selfreward.records import Evaluation, Interval
from selfreward.reporting import figures
from selfreward.reporting.figures import Figure, Gained
from selfreward.reporting.measurements import is_invalid
from selfreward.statistics import overoptimisation

TITLE = "Gain over M₀ against the distance from it"
# Metric, label, what is subtracted so that no difference is 0, colour.
_SEEN_BY = (
    ("win_rate_vs_initial", "anchor", 0.5, 1),
    ("self_win_rate_vs_initial", "own judge", 0.5, 2),
    ("pass_rate_vs_initial", "pass rate", 0.0, 3),
)
_KL = "kl_initial_nats"
_Z = 1.959964


def gains_figure(evaluations: Sequence[Evaluation]) -> Figure | None:
    """None where no checkpoint has both a gain and a distance."""
    seen_by, lengths = _seen_by(evaluations)
    gained = [Gained(label, _points(evaluations, name, neutral), index) for name, label, neutral, index in seen_by]
    curve, band, said = _fitted(gained[0].points)
    svg = figures.gains_by_distance(gained, alt=TITLE, curve=curve, band=band)
    if svg is None:
        return None
    shown = tuple(name for (name, *_), one in zip(seen_by, gained, strict=True) if one.points)
    note = (
        "Each point is a checkpoint, with its 95 % interval; right is further from M₀. Where the own judge goes on "
        f"rising and the anchor does not, the judge is being exploited. {lengths}{said}"
    )
    return Figure(TITLE, svg, (*shown, _KL), note)


def _seen_by(evaluations: Sequence[Evaluation]) -> tuple[Sequence[tuple[str, str, float, int]], str]:
    """What is shown, and whether at equal length: for both judges or for none, so that they can be compared."""
    *win_rates, pass_rate = _SEEN_BY
    adjusted = [(f"length_adjusted_{name}", label, neutral, index) for name, label, neutral, index in win_rates]
    num_raw, num_adjusted = (
        [len(_points(evaluations, name, neutral)) for name, _, neutral, _ in names] for names in (win_rates, adjusted)
    )
    if not any(num_raw):
        return _SEEN_BY, ""
    if num_adjusted == num_raw:
        return [*adjusted, pass_rate], "Win rates are at equal length of the responses. "
    return _SEEN_BY, "Win rates are of the responses as they came, not adjusted for their length. "


def _points(evaluations: Sequence[Evaluation], name: str, neutral: float) -> list[tuple[float, Interval]]:
    found = []
    for evaluation in evaluations:
        gain, kl = evaluation.metrics.get(name), evaluation.metrics.get(_KL)
        if isinstance(gain, Interval) and kl is not None and not is_invalid(evaluation, name):
            nats = kl.mean if isinstance(kl, Interval) else kl
            moved = Interval(gain.mean - neutral, gain.low - neutral, gain.high - neutral, gain.num_units, gain.level)
            if np.isfinite([nats, moved.mean, moved.low, moved.high]).all():
                found.append((overoptimisation.distance(nats), moved))
    return found


Line = tuple[list[float], list[float]]


def _fitted(points: Sequence[tuple[float, Interval]]) -> tuple[Line | None, Line | None, str]:
    """The curve through the anchor's gains, its band, and what is said of them."""
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
        top = "it has no top"
    elif peak > 2 * max(distances):
        top = "its top lies far beyond what was seen"
    else:
        top = f"its top would be at d* = {peak:.2g}"
    said = (
        f"Dashed, descriptive: d (a \u2212 b log d) with a = {_signed(found.a)} and b = {_signed(found.b)}, fitted to "
        f"the anchor's gains; {top}. The form is from reinforcement learning against a frozen reward model "
        "(2210.10760), and a few points decide little."
    )
    return (grid.tolist(), found.at(grid).tolist()), band, said


def _signed(value: float) -> str:
    return f"{value:.2g}".replace("-", "\u2212")
