"""The decision on one iteration: a pure function of evidence and settings, shared by runs, tables and simulations.

The rules are tried in this order, with bounds at the levels of `bounds.Levels` and comparisons paired by prompt:

    INVALID       the measurement is not trustworthy, so nothing is decided
    HARM          anchor: M_t is worse than M_{t-1}, or checks: worse than the best      upper bound < 0
    OVEROPT       no gain worth an iteration, but one according to the run's own judge   self: lower bound > delta
    PLATEAU       no gain worth an iteration, over M_{t-1} or over an earlier best       upper bound < delta
    DRIFT         the judge got worse on gold pairs, or its ranking of the fixed pool reversed
    STARVED       the judge's scores contain too little signal to learn from, or nothing was trained
    INCONCLUSIVE  neither a gain nor its absence is shown; the second validation set, if any, is evaluated first
    CONTINUE      a gain is shown

While every iteration gains `delta` or more, a run of `horizon` iterations is stopped by PLATEAU or OVEROPT with a
probability of at most `alpha_stop`: both require the upper bound of the gain to be below delta, which then is an error
of probability alpha_stop / horizon in each iteration, and by the union bound the errors of a run at most add up,
regardless of their dependence. All further conditions only lower this probability. With a second validation set, the
two interim analyses of an iteration share its budget. Where the best is older than M_{t-1}, M_t gained at least twice
delta over it, if gains add up, so that the second bound is far from delta and costs nothing: it detects plateaus that
one analysis missed. Where preferences are cyclic it may cost as much as the first.

M_t becomes the best checkpoint by a separate test: its gain over the best is shown, at the level of a stop, and its
pass rate is not `max_pass_rate_loss` or more below that of the best. The latter is a point estimate: excluding a loss
of two percentage points by a bound takes about 4,000 verifiable prompts. So `best` is the checkpoint that was shown to
be better, not the latest one.

A judge is starved when the 95 % interval of its reliability or of its pair yield lies entirely below the limit, which
few prompts cannot show. Pairs of a judge that is too noisy are not trained on; with only a small yield the pairs are
trained on, and STARVED is reported afterwards.

An iteration without training gains nothing. That is STARVED, unless the judge is a program and its scores leave less
than delta to gain: the outcome of a response that fails may rise from 0.5 to 1 and no other can, so no gain exceeds
half the share of responses that fail. Then the decision is PLATEAU, since nearly all prompts are solved.

`benchmarks/monitor_oc.py` simulates all of this, and the cases in which the guarantees do not hold.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from selfreward.monitoring.analysis import Analysis
from selfreward.monitoring.bounds import Levels, gain, gold_difference, pass_rate_difference, pooled, widened
from selfreward.monitoring.evidence import Evidence, Outcomes
from selfreward.monitoring.sentences import NOTHING_TRAINED, notes, sentence
from selfreward.recipe import MonitorSection
from selfreward.records import Decision, DecisionName, Interval

STOPS: frozenset[DecisionName] = frozenset({"HARM", "OVEROPT", "PLATEAU", "STARVED"})
EQUAL_TOLERANCE = 1e-6
"""Outcomes that differ by less than this are equal."""

MIN_PROMPTS = 12
"""Minimum for which the coverage of the reliability's interval was simulated (`statistics/reliability.py`)."""


def decide_all(records: Sequence[Evidence], settings: MonitorSection) -> list[Decision]:
    """Return the decision on each iteration, including those after a stop. `records` are iterations 1..t in order."""
    decided: list[Decision] = []
    for t in range(len(records)):
        decided.append(decide(records[: t + 1], settings, decided=decided))
    return decided


def decide(
    records: Sequence[Evidence], settings: MonitorSection, *, decided: Sequence[Decision] | None = None
) -> Decision:
    """Return the decision on the last of `records`, which contains iterations 1..t in order, at least one.

    `decided` are the decisions on 1..t-1 as they were made; without them they are computed again. When the validation
    prompts leave the decision open and there is a second validation set that was not evaluated, the decision
    `wants_second_validation`, and must be made again with its outcomes.
    """
    if decided is None:
        return decide_all(records, settings)[-1]
    now = records[-1]
    share = settings.first_analysis_share if now.num_second_validation else 1.0
    analysis, name = _analyse(records, settings, decided, ("validation",), share)
    number, before, wants_second_validation = 1, 0.0, False
    if name == "INCONCLUSIVE" and now.num_second_validation:
        if now.of("anchor", now.previous, "second_validation") is None:
            wants_second_validation = True
        else:
            number, before, share = (
                2,
                share,
                1 - share,
            )  # the first analysis was made, regardless of the second one's result
            analysis, name = _analyse(records, settings, decided, ("validation", "second_validation"), share)
    tested = name != "INVALID" and (now.trained or name == "PLATEAU")
    best = now.iteration if tested and _becomes_best(analysis, name, settings) else _best_before(decided)
    decision = Decision(
        iteration=now.iteration,
        decision=name,
        reason="",
        best_iteration=best,
        stopped_by=name if settings.mode == "enforce" and name in STOPS else "",
        bounds=_bounds(analysis, now),
        alpha_spending=_alpha_spending(settings, decided, before + (share if tested else 0.0)),
        num_analyses=number,
        wants_second_validation=wants_second_validation,
    )
    return replace(
        decision,
        reason=sentence(decision, analysis, now, settings, best_before=_best_before(decided)),
        notes=notes(decision, analysis, now, settings, decided),
    )


def too_noisy(evidence: Evidence, settings: MonitorSection) -> tuple[str, ...]:
    """Return the reason why the judge is too noisy to learn from its pairs; empty when that is not shown."""
    r, limit = evidence.reliability, settings.min_reliability
    if r is None or evidence.num_reliability_prompts < MIN_PROMPTS:
        return ()
    if isinstance(r, float):
        return (f"the judge's reliability is {r:.2f}, below {limit:g}",) if r < limit else ()
    if r.high >= limit:
        return ()
    return (
        f"the judge's reliability is {r.mean:.2f} ({r.level:.0%} interval {r.low:.2f} to {r.high:.2f}), below "
        f"{limit:g}",
    )


def starved(evidence: Evidence, settings: MonitorSection) -> tuple[str, ...]:
    """Return the reasons why the judge's scores contain too little signal; empty when that is not shown."""
    pairs = evidence.pair_yield_rate
    if pairs is None or pairs.high >= settings.min_yield_rate:
        return too_noisy(evidence, settings)
    return (
        *too_noisy(evidence, settings),
        f"{pairs.mean:.0%} of the prompts gave a pair ({pairs.level:.0%} interval {pairs.low:.0%} to "
        f"{pairs.high:.0%}), fewer than {settings.min_yield_rate:.0%}",
    )


def _analyse(
    records: Sequence[Evidence],
    settings: MonitorSection,
    decided: Sequence[Decision],
    sets: tuple[str, ...],
    share: float,
) -> tuple[Analysis, DecisionName]:
    now = records[-1]
    reasons = starved(now, settings)
    levels = Levels.of_analysis(settings, share)
    if not now.trained:
        failing = widened(now.failing, levels, limits=(0.0, 1.0))
        analysis = Analysis(failing=failing, starved=reasons or (NOTHING_TRAINED,), trained=False)
        solved = failing is not None and failing.stop[1] / 2 < settings.delta and not too_noisy(now, settings)
        return analysis, "PLATEAU" if solved else "STARVED"
    anchor = pooled([now.of("anchor", now.previous, name) for name in sets])
    best = _best_before(decided)
    passes = pass_rate_difference(now.of("checks", now.previous, "verifiable"), levels)
    passes_vs_best = pass_rate_difference(now.of("checks", best, "verifiable"), levels)
    if invalid := _invalid(now, anchor, settings):
        analysis = Analysis(pass_rate=passes, pass_rate_vs_best=passes_vs_best, invalid=invalid, starved=reasons)
        return analysis, "INVALID"
    adjusted = settings.length_adjusted
    found = gain(anchor, levels, length_adjusted=adjusted)
    is_adjusted = found is not None and found.method.startswith("length_adjusted")
    baseline = pooled([now.of("anchor", best, name) for name in sets])
    if baseline is not None and baseline.unscored_rate > settings.max_anchor_unscored_rate:
        baseline = None
    analysis = Analysis(
        gain=found,
        raw_gain=gain(anchor, levels, length_adjusted=False) if is_adjusted else None,
        gain_vs_best=found if best == now.previous else gain(baseline, levels, length_adjusted=adjusted),
        self_gain=gain(now.of("self", now.previous), levels, length_adjusted=adjusted),
        pass_rate=passes,
        pass_rate_vs_best=passes_vs_best,
        gold=gold_difference(_gold(now), _best_gold(records[:-1]), levels),
        tau=widened(now.tau, levels, limits=(-1.0, 1.0)),
        starved=reasons,
    )
    return analysis, _decision_name(analysis, settings)


def _decision_name(analysis: Analysis, settings: MonitorSection) -> DecisionName:
    """Apply the rules in the order of the module's table, to a trained iteration with a valid anchor."""
    assert analysis.gain is not None
    passes_more = analysis.pass_rate is not None and analysis.pass_rate.stop[0] > 0
    passes = analysis.pass_rate_for_harm
    if analysis.gain.harm[1] < 0 or (passes is not None and passes.harm[1] < 0):
        return "HARM"
    # Programmatic checks outweigh the anchor: a rising pass rate is a gain that the anchor does not measure.
    if _is_flat(analysis, settings) and not passes_more:
        exploited = analysis.self_gain is not None and analysis.self_gain.stop[0] > settings.delta
        return "OVEROPT" if exploited else "PLATEAU"
    worse_on_gold = analysis.gold is not None and analysis.gold.harm[1] < -settings.max_gold_loss
    if worse_on_gold or (analysis.tau is not None and analysis.tau.harm[1] < 0):
        return "DRIFT"
    if analysis.starved:
        return "STARVED"
    return "CONTINUE" if analysis.gain.stop[0] > 0 or passes_more else "INCONCLUSIVE"


def _is_flat(analysis: Analysis, settings: MonitorSection) -> bool:
    return any(g is not None and g.stop[1] < settings.delta for g in (analysis.gain, analysis.gain_vs_best))


def _invalid(now: Evidence, anchor: Outcomes | None, settings: MonitorSection) -> tuple[str, ...]:
    reasons = list(now.invalid)
    if anchor is None or len(anchor.values) == 0:
        return (*reasons, f"the anchor has no readable outcome against M_{now.previous}")
    allowed = settings.max_anchor_unscored_rate
    if anchor.unscored_rate > allowed:
        reasons.append(
            f"{anchor.unscored_rate:.1%} of the anchor's outcomes are unscored; {allowed:.0%} are allowed, because "
            "unscored outcomes are not missing at random"
        )
    consistency = now.position_consistency
    if not now.invalid and consistency is not None and consistency < settings.min_position_consistency:
        reasons.append(
            f"the anchor prefers the same response in both orders for {consistency:.0%} of the prompts; "
            f"{settings.min_position_consistency:.0%} are needed"
        )
    if not now.anchor_examined and float(np.ptp(anchor.values)) < EQUAL_TOLERANCE:
        reasons.append(
            f"each of the anchor's {len(anchor.values)} outcomes is {anchor.values[0]:g}; an anchor without variance "
            "cannot distinguish responses"
        )
    return tuple(reasons)


def _becomes_best(analysis: Analysis, name: DecisionName, settings: MonitorSection) -> bool:
    if name in ("HARM", "OVEROPT") or analysis.gain_vs_best is None:
        return False
    no_loss = analysis.pass_rate_vs_best is None or analysis.pass_rate_vs_best.mean > -settings.max_pass_rate_loss
    return analysis.gain_vs_best.stop[0] > 0 and no_loss


def _best_before(decided: Sequence[Decision]) -> int:
    return decided[-1].best_iteration if decided else 0


def _gold(evidence: Evidence) -> Outcomes | None:
    return evidence.of("self", -1, "gold")


def _best_gold(earlier: Sequence[Evidence]) -> Outcomes | None:
    """Return the gold outcomes of the most accurate judge so far."""
    found = [outcomes for evidence in earlier if (outcomes := _gold(evidence)) is not None and len(outcomes.values)]
    return max(found, key=lambda outcomes: float(outcomes.values.mean()), default=None)


def _bounds(analysis: Analysis, now: Evidence) -> dict[str, dict[str, Any]]:
    tests = {
        "gain_vs_previous": analysis.gain,
        "raw_gain_vs_previous": analysis.raw_gain,
        "gain_vs_best": analysis.gain_vs_best,
        "self_gain_vs_previous": analysis.self_gain,
        "pass_rate_vs_previous": analysis.pass_rate,
        "pass_rate_vs_best": analysis.pass_rate_vs_best,
        "gold_accuracy_vs_best": analysis.gold,
        "tau": analysis.tau,
        "failing_response_rate": analysis.failing,
    }
    found = {name: test.as_json() for name, test in tests.items() if test is not None}
    for name, interval in (("reliability", now.reliability), ("pair_yield_rate", now.pair_yield_rate)):
        if isinstance(interval, Interval):
            found[name] = {
                "mean": interval.mean,
                "interval": [interval.low, interval.high],
                "num_prompts": interval.num_units,
                "method": interval.method,
            }
    return found


def _alpha_spending(settings: MonitorSection, decided: Sequence[Decision], share: float) -> dict[str, float]:
    """Return the budget spent after this iteration; `share` is the part of an iteration's budget that it spent."""
    before = decided[-1].alpha_spending if decided else {}
    return {
        "num_tested_iterations": before.get("num_tested_iterations", 0.0) + (share > 0),
        "horizon": settings.horizon,
        "stop": before.get("stop", 0.0) + settings.alpha_stop * share / settings.horizon,
        "stop_total": settings.alpha_stop,
        "harm": before.get("harm", 0.0) + settings.alpha_harm * share / settings.horizon,
        "harm_total": settings.alpha_harm,
    }
