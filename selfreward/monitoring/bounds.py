"""Estimates with the confidence bounds on which decisions are based, at the levels of the alpha-spending budget.

Over the complete run `alpha_stop` may be spent on false stops and `alpha_harm` on false alarms. Each of the `horizon`
iterations gets the same share; its share for harm is divided by the number of harm tests, four (gain, pass rate, gold
accuracy, tau). By the union bound the probabilities add up, regardless of the dependence between tests and iterations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from selfreward.monitoring.evidence import Array, Outcomes
from selfreward.recipe import MonitorSection
from selfreward.records import Interval
from selfreward.statistics.intervals import mean_interval
from selfreward.statistics.length_adjusted import adjusted_values

NUM_HARM_TESTS = 4


@dataclass(frozen=True)
class Levels:
    """Error probabilities of the one-sided bounds in one interim analysis, for stops and for harm."""

    stop: float
    harm: float

    @classmethod
    def of_analysis(cls, settings: MonitorSection, share: float) -> "Levels":
        """Return the levels of an analysis that spends `share`, in (0, 1], of an iteration's budget."""
        per_analysis = share / settings.horizon
        return cls(settings.alpha_stop * per_analysis, settings.alpha_harm * per_analysis / NUM_HARM_TESTS)


@dataclass(frozen=True)
class Bounded:
    """An estimate with one-sided lower and upper bounds at the stop level and at the harm level."""

    mean: float
    stop: tuple[float, float]
    harm: tuple[float, float]
    num_prompts: int
    method: str

    def as_json(self) -> dict[str, Any]:
        return {
            "mean": self.mean,
            "stop": list(self.stop),
            "harm": list(self.harm),
            "num_prompts": self.num_prompts,
            "method": self.method,
        }


def gain(outcomes: Outcomes | None, levels: Levels, *, length_adjusted: bool) -> Bounded | None:
    """Return the mean outcome minus 0.5, in [-0.5, 0.5]; None without outcomes."""
    if outcomes is None or len(outcomes.values) == 0:
        return None
    if length_adjusted and outcomes.length_deltas_tokens is not None:
        adjusted = adjusted_values(outcomes.values, outcomes.length_deltas_tokens)
        if adjusted is not None:
            return _within(_bounded(adjusted - 0.5, levels, bounds=None, method="length_adjusted_"))
    return _bounded(outcomes.values - 0.5, levels, bounds=(-0.5, 0.5))


def pass_rate_difference(outcomes: Outcomes | None, levels: Levels) -> Bounded | None:
    """Return the difference of the pass rates from verifiable outcomes, in [-1, 1]; None without outcomes."""
    if outcomes is None or len(outcomes.values) == 0:
        return None
    return _bounded(2 * outcomes.values - 1, levels, bounds=(-1.0, 1.0))


def gold_difference(now: Outcomes | None, before: Outcomes | None, levels: Levels) -> Bounded | None:
    """Return the accuracy of this judge minus that of an earlier one, over the gold pairs that both could order."""
    if now is None or before is None:
        return None
    earlier = dict(zip(before.prompt_ids, before.values, strict=True))
    paired = [(v, earlier[p]) for p, v in zip(now.prompt_ids, now.values, strict=True) if p in earlier]
    if not paired:
        return None
    return _bounded(np.array([a - b for a, b in paired]), levels, bounds=(-1.0, 1.0))


def widened(interval: Interval | None, levels: Levels, *, limits: tuple[float, float]) -> Bounded | None:
    """Rescale an interval to the levels of an analysis, by the ratio of normal quantiles, within `limits`."""
    if interval is None:
        return None
    own = NormalDist().inv_cdf((1 + interval.level) / 2)

    def at(alpha: float) -> tuple[float, float]:
        ratio = NormalDist().inv_cdf(1 - alpha) / own
        mean = interval.mean
        low, high = mean - ratio * (mean - interval.low), mean + ratio * (interval.high - mean)
        return max(low, limits[0]), min(high, limits[1])

    return Bounded(interval.mean, at(levels.stop), at(levels.harm), interval.num_units, interval.method)


def pooled(parts: Sequence[Outcomes | None]) -> Outcomes | None:
    """Concatenate the outcomes of several sets of prompts; None if all are None."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    deltas = [
        part.length_deltas_tokens if part.length_deltas_tokens is not None else np.full(len(part.values), np.nan)
        for part in found
    ]
    known = any(part.length_deltas_tokens is not None for part in found)
    return Outcomes(
        prompt_ids=tuple(p for part in found for p in part.prompt_ids),
        values=np.concatenate([part.values for part in found]),
        length_deltas_tokens=np.concatenate(deltas) if known else None,
        num_unscored=sum(part.num_unscored for part in found),
    )


def _within(found: Bounded) -> Bounded:
    """Clip a gain and its bounds to [-0.5, 0.5], which the length regression may exceed."""

    def clipped(bounds: tuple[float, float]) -> tuple[float, float]:
        return max(bounds[0], -0.5), min(bounds[1], 0.5)

    return replace(found, mean=max(-0.5, min(found.mean, 0.5)), stop=clipped(found.stop), harm=clipped(found.harm))


def _bounded(values: Array, levels: Levels, *, bounds: tuple[float, float] | None, method: str = "") -> Bounded:
    if len(values) == 1 and bounds is None:
        raise ValueError("bounds: a single value without known limits has no interval")
    at_stop = mean_interval(values, level=1 - 2 * levels.stop, bounds=bounds)
    at_harm = mean_interval(values, level=1 - 2 * levels.harm, bounds=bounds)
    return Bounded(
        mean=at_stop.mean,
        stop=(at_stop.low, at_stop.high),
        harm=(at_harm.low, at_harm.high),
        num_prompts=at_stop.num_units,
        method=method + at_stop.method,
    )
