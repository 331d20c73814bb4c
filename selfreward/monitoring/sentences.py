"""The decision as one readable sentence, and notes on its limitations."""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from selfreward.monitoring.analysis import Analysis
from selfreward.monitoring.bounds import Bounded, Levels
from selfreward.monitoring.evidence import Evidence
from selfreward.recipe import MonitorSection
from selfreward.records import Decision

POWER = 0.8
NOTHING_TRAINED = "nothing was trained"


def sentence(
    decision: Decision, analysis: Analysis, now: Evidence, settings: MonitorSection, *, best_before: int
) -> str:
    """Return a sentence on M_t and, if it is not M_t, the checkpoint to use."""
    finding = _finding(decision, analysis, now, settings, best_before=best_before)
    best = decision.best_iteration
    if best == now.iteration:
        return f"{finding}."
    return f"{finding}; use M_{best}{', the initial model' if best == 0 else ''}."


def _finding(
    decision: Decision, analysis: Analysis, now: Evidence, settings: MonitorSection, *, best_before: int
) -> str:
    current, previous = f"M_{now.iteration}", f"M_{now.previous}"
    delta = _pp(settings.delta, sign=False)
    if now.num_same_responses and decision.decision in ("PLATEAU", "INCONCLUSIVE"):
        return (
            f"{current} gives the same responses as {previous} on all {now.num_same_responses} validation prompts, so "
            "the anchor was not asked: the update did not change the responses"
        )
    match decision.decision:
        case "INVALID":
            return f"Nothing can be decided about {current}: {' and '.join(analysis.invalid)}"
        case "HARM":
            return f"{current} is worse: {_harm(analysis, previous, f'M_{best_before}')}"
        case "OVEROPT":
            return (
                f"{current} pleases its own judge but not the anchor: the judge measures "
                f"{_with_bounds(analysis.self_gain)} over {previous}, the anchor "
                f"{_overopt(analysis, settings, best_before)}, less than the {delta} that an iteration is worth"
            )
        case "PLATEAU" if analysis.failing is not None:
            return (
                f"Nearly all prompts are solved: {analysis.failing.mean:.1%} of the responses of {previous} fail (at "
                f"most {analysis.failing.stop[1]:.1%}), which leaves less than the {delta} that an iteration is worth, "
                f"and nothing was trained, so {current} is {previous}"
            )
        case "PLATEAU" if analysis.gain is not None and analysis.gain.stop[1] >= settings.delta:
            return (
                f"{current} gains less over M_{best_before}, the best since iteration {best_before}, than the "
                f"{delta} that an iteration is worth: the anchor measures {_with_bounds(analysis.gain_vs_best)}, and "
                f"{_with_bounds(analysis.gain)} over {previous}"
            )
        case "PLATEAU":
            return (
                f"{current} gains less over {previous} than the {delta} that an iteration is worth: the anchor "
                f"measures {_with_bounds(analysis.gain)}"
            )
        case "DRIFT":
            gain = _with_bounds(analysis.gain)
            return f"The judge has drifted: {_drift(analysis)}; {current} against {previous}: {gain}"
        case "STARVED":
            if analysis.starved == (NOTHING_TRAINED,):
                return f"Nothing was trained, so {current} is {previous}"
            doing = "" if analysis.trained else f", so nothing was trained and {current} is {previous}"
            return f"There is too little signal to learn from: {' and '.join(analysis.starved)}{doing}"
        case "INCONCLUSIVE":
            return (
                f"Neither a gain of {current} over {previous} nor its absence is shown: {_with_bounds(analysis.gain)}, "
                f"against the {delta} that an iteration is worth"
            )
        case _:
            return f"{current} is better than {previous}: {_better(analysis)}"


def _overopt(analysis: Analysis, settings: MonitorSection, best_before: int) -> str:
    if analysis.gain is not None and analysis.gain.stop[1] >= settings.delta:
        return f"{_with_bounds(analysis.gain_vs_best)} over M_{best_before}, the best"
    return _with_bounds(analysis.gain)


def _harm(analysis: Analysis, previous: str, best: str) -> str:
    found = []
    if analysis.gain is not None and analysis.gain.harm[1] < 0:
        found.append(f"the anchor measures {_with_bounds(analysis.gain, at='harm')} against {previous}")
    passes = analysis.pass_rate_for_harm
    if passes is not None and passes.harm[1] < 0:
        baseline = best if analysis.pass_rate_vs_best else previous
        found.append(f"the pass rate changed by {_with_bounds(passes, at='harm')} against {baseline}")
    return " and ".join(found)


def _drift(analysis: Analysis) -> str:
    found = []
    if analysis.gold is not None and analysis.gold.harm[1] < 0:
        found.append(
            f"on gold pairs its accuracy changed by {_with_bounds(analysis.gold, at='harm')} against its best version"
        )
    if analysis.tau is not None and analysis.tau.harm[1] < 0:
        found.append(f"it ranks the fixed pool in reverse of the previous judge, tau {analysis.tau.mean:.2f}")
    return " and ".join(found)


def _better(analysis: Analysis) -> str:
    if analysis.gain is not None and analysis.gain.stop[0] > 0:
        return f"the anchor measures {_with_bounds(analysis.gain)}"
    return (
        f"the pass rate rose by {_with_bounds(analysis.pass_rate)}, the anchor measures {_with_bounds(analysis.gain)}"
    )


def notes(
    decision: Decision, analysis: Analysis, now: Evidence, settings: MonitorSection, decided: Sequence[Decision]
) -> tuple[str, ...]:
    """Return the limitations of the decision, one sentence each."""
    found = []
    if decision.alpha_spending["num_tested_iterations"] > settings.horizon:
        found.append(
            f"The alpha-spending budget is for {settings.horizon} iterations and is exhausted: from now on false stops "
            f"may be more frequent than {settings.alpha_stop:.0%}."
        )
    open_twice = decision.decision == "INCONCLUSIVE" and bool(decided) and decided[-1].decision == "INCONCLUSIVE"
    if decision.decision == "INCONCLUSIVE" and analysis.gain is not None and not decision.wants_second_validation:
        needed = num_prompts_needed(analysis.gain, settings, share=_share(decision, now, settings))
        is_more = needed > analysis.gain.num_prompts
        again = "For the second time in a row the gain is below the resolution of the data. " if open_twice else ""
        takes = "would take about" if is_more else "takes"
        found.append(
            f"{again}To distinguish a gain of {_pp(settings.delta, sign=False)} from none with a power of {POWER:.0%} "
            f"{takes} {needed} prompts; there were {analysis.gain.num_prompts}."
        )
    anchor = now.of("anchor", now.previous)
    deltas = anchor.length_deltas_tokens if anchor is not None and settings.length_adjusted else None
    if analysis.gain is not None and deltas is not None and bool(np.isnan(deltas).any()):
        found.append("Some lengths are missing, so the gain is not adjusted for length.")
    if (
        analysis.raw_gain is not None
        and analysis.gain is not None
        and analysis.raw_gain.stop[0] > 0 >= analysis.gain.stop[0]
    ):
        found.append(
            f"At equal length no gain is shown, {_with_bounds(analysis.gain)}; without length adjustment it was "
            f"{_with_bounds(analysis.raw_gain)}."
        )
    if analysis.invalid and analysis.pass_rate_vs_best is not None and analysis.pass_rate_vs_best.harm[1] < 0:
        found.append(
            f"The pass rate, which needs no anchor, changed by {_with_bounds(analysis.pass_rate_vs_best, at='harm')}: "
            "a loss."
        )
    if analysis.gain is not None and analysis.gain_vs_best is None and decision.decision not in ("HARM", "OVEROPT"):
        best = decided[-1].best_iteration if decided else 0
        found.append(
            f"There are no usable outcomes against M_{best}, the best so far, so M_{now.iteration} cannot replace it."
        )
    return tuple(found)


def num_prompts_needed(found: Bounded, settings: MonitorSection, *, share: float = 1.0) -> int:
    """Return the number of prompts that distinguish no gain from delta in one analysis with a power of POWER.

    By the normal approximation and with the spread of these outcomes: ((z_stop + z_power) sd / delta)^2. `share` is the
    part of the iteration's budget used for the bounds of `found`, and assumed for such an analysis.
    """
    own = max(found.stop[1] - found.stop[0], 1e-9) / 2
    z = NormalDist().inv_cdf
    level = z(1 - Levels.of_analysis(settings, share).stop)
    deviation = own / level * math.sqrt(found.num_prompts)
    return math.ceil(((level + z(POWER)) * deviation / settings.delta) ** 2)


def _share(decision: Decision, now: Evidence, settings: MonitorSection) -> float:
    if decision.num_analyses == 2:
        return 1 - settings.first_analysis_share
    return settings.first_analysis_share if now.num_second_validation else 1.0


def _with_bounds(found: Bounded | None, *, at: str = "stop") -> str:
    if found is None:
        return "no measurement"
    low, high = found.harm if at == "harm" else found.stop
    return f"{_pp(found.mean)} (bounds {_pp(low, unit=False)} to {_pp(high, unit=False)})"


def _pp(share: float, *, sign: bool = True, unit: bool = True) -> str:
    """Format a share in percentage points."""
    number = f"{100 * share:+.1f}" if sign else f"{100 * share:.3g}"
    return f"{number} pp" if unit else number
