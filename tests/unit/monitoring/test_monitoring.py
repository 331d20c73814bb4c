"""The decision: its order of rules, its bounds, its budget, and the best checkpoint. A pure function of evidence."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.monitoring.bounds import Levels
from selfreward.monitoring.decide import STOPS, decide, decide_all, starved
from selfreward.monitoring.evidence import Evidence, Outcomes, evidence_of, tabulate
from selfreward.recipe import MonitorSection
from selfreward.records import Evaluation, Interval, IterationSummary, PromptOutcome

N = 800


def counted(gain, *, n=N, tie_rate=0.4, deltas=None):
    """Wins, ties and losses whose mean is 0.5 + gain, as exactly as n allows; no randomness."""
    ties = round(n * tie_rate)
    wins = round((n - ties) / 2 + n * gain)
    values = np.array([1.0] * wins + [0.5] * ties + [0.0] * (n - ties - wins))
    return Outcomes(tuple(f"p{i}" for i in range(n)), values, deltas)


def evidence(t=1, gain=0.0, *, judge=None, checks=None, best=None, gain_vs_best=None, n=N, **more):
    found = {("anchor", "validation", t - 1): counted(gain, n=n)}
    if judge is not None:
        found["self", "validation", t - 1] = counted(judge, n=n)
    if checks is not None:
        found["checks", "verifiable", t - 1] = counted(checks, n=n)
    if best is not None:
        found["anchor", "validation", best] = counted(gain if gain_vs_best is None else gain_vs_best, n=n)
    return Evidence(t, t - 1, found, **more)


def decisions_of(*records, **section):
    return [d.decision for d in decide_all(records, MonitorSection(**section))]


LOW = Interval(0.1, 0.0, 0.3, num_units=100)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (evidence(gain=0.1), "CONTINUE"),
        (evidence(gain=0.03), "INCONCLUSIVE"),
        (evidence(gain=0.0), "PLATEAU"),
        (evidence(gain=0.0, judge=0.15), "OVEROPT"),
        (evidence(gain=-0.1), "HARM"),
        (evidence(gain=-0.1, judge=0.15), "HARM"),
        (evidence(gain=0.1, checks=-0.1), "HARM"),
        (evidence(gain=-0.1, invalid=("the anchor is broken",)), "INVALID"),
        (evidence(gain=0.0, judge=0.15, checks=0.1), "CONTINUE"),  # the checks detect what the anchor does not
        (evidence(gain=0.0, judge=0.05), "PLATEAU"),  # the judge measures a gain of no more than delta
        (evidence(gain=0.1, tau=Interval(-0.5, -0.6, -0.4, 64)), "DRIFT"),
        (evidence(gain=0.0, tau=Interval(-0.5, -0.6, -0.4, 64)), "PLATEAU"),
        (evidence(gain=0.1, tau=Interval(-0.1, -0.3, 0.1, 64)), "CONTINUE"),
        (evidence(gain=0.1, reliability=LOW), "STARVED"),
        (evidence(gain=0.1, pair_yield_rate=LOW, tau=Interval(-0.5, -0.6, -0.4, 64)), "DRIFT"),
        (evidence(gain=0.1, reliability=Interval(0.3, 0.1, 0.5, 64)), "CONTINUE"),  # low, and not shown to be
        (Evidence(1, 0, trained=False), "STARVED"),
        (Evidence(1, 0), "INVALID"),  # trained, and the anchor said nothing
    ],
)
def test_each_decision_in_its_order(record, expected):
    decision = decide([record], MonitorSection())
    assert decision.decision == expected
    assert decision.stopped_by == (expected if expected in STOPS else "")
    assert decide([record], MonitorSection(mode="report_only")).stopped_by == ""
    assert decision.reason.endswith(".") and "\n" not in decision.reason


def test_a_plateau_is_decided_by_the_bound_and_not_by_the_mean():
    """At 0.0125 below delta nothing is shown with 800 prompts, and with 80,000 it is."""
    assert decisions_of(evidence(gain=0.0375)) == ["CONTINUE"]  # above zero by more than its error
    assert decisions_of(evidence(gain=0.02)) == ["INCONCLUSIVE"]
    assert decisions_of(evidence(gain=0.02, n=40 * N)) == ["PLATEAU"]
    assert decisions_of(evidence(gain=0.02, n=40 * N), delta=0.01) == ["CONTINUE"]


def test_a_plateau_missed_against_the_previous_is_detected_against_an_older_best():
    """M_3 gains .03 over M_2, which is open, and nothing over the best, M_1."""
    first = [evidence(1, 0.1), evidence(2, 0.02)]
    assert decisions_of(*first, evidence(3, 0.03)) == ["CONTINUE", "INCONCLUSIVE", "INCONCLUSIVE"]
    decision = decide([*first, evidence(3, 0.03, best=1, gain_vs_best=0.0)], MonitorSection())
    assert decision.decision == "PLATEAU" and "gains less over M_1, the best since iteration 1" in decision.reason
    assert decisions_of(*first, evidence(3, 0.03, best=1, gain_vs_best=0.05))[2] == "INCONCLUSIVE"
    assert decisions_of(*first, evidence(3, 0.03, best=1, gain_vs_best=0.0, judge=0.2))[2] == "OVEROPT"


@pytest.mark.parametrize("value", [0.5, 1.0, 0.0, 0.7])
def test_an_anchor_without_variance_is_never_a_plateau(value):
    alike = Outcomes(tuple(map(str, range(N))), np.full(N, value))
    record = Evidence(1, 0, {("anchor", "validation", 0): alike})
    decision = decide([record], MonitorSection())
    assert decision.decision == "INVALID" and "without variance" in decision.reason
    # An anchor that was examined in both orders may find all prompts alike: two checkpoints with the same responses.
    examined = decide([replace(record, anchor_examined=True)], MonitorSection())
    assert examined.decision == ("HARM" if value == 0.0 else "PLATEAU" if value == 0.5 else "CONTINUE")


def test_the_reason_does_not_say_that_the_anchor_measured_equal_responses():
    alike = Outcomes(tuple(map(str, range(N))), np.full(N, 0.5))
    record = Evidence(1, 0, {("anchor", "validation", 0): alike}, anchor_examined=True, num_same_responses=N)
    reason = decide([record], MonitorSection()).reason
    assert reason.startswith(f"M_1 gives the same responses as M_0 on all {N} validation prompts")
    assert "the anchor measures" not in reason


def test_nothing_trained_is_said_once():
    reason = decide([Evidence(1, 0, trained=False)], MonitorSection()).reason
    assert reason.count("othing was trained") == 1 and "too little signal" not in reason


def test_an_anchor_below_its_limits_is_invalid():
    assert decisions_of(evidence(position_consistency=0.59)) == ["INVALID"]
    assert decisions_of(evidence(position_consistency=0.6)) == ["PLATEAU"]
    few, many = (Evidence(1, 0, {("anchor", "validation", 0): replace(counted(0.0), num_unscored=k)}) for k in (16, 17))
    assert (decisions_of(few), decisions_of(many)) == (["PLATEAU"], ["INVALID"])  # 16 of 816 are less than 2 %


def test_the_budget_is_spread_over_the_horizon_and_its_end_is_noted():
    records = [evidence(t, 0.1) for t in range(1, 5)]
    decisions = decide_all(records, MonitorSection(horizon=3))
    spent = [d.alpha_spending["stop"] for d in decisions]
    assert spent == pytest.approx([0.05 / 3, 0.1 / 3, 0.05, 0.2 / 3])
    assert [any("is exhausted" in note for note in d.notes) for d in decisions] == [False, False, False, True]
    level = Levels.of_analysis(MonitorSection(horizon=3), 1.0)
    assert (level.stop, level.harm) == pytest.approx((0.05 / 3, 0.05 / 12))


def test_an_iteration_that_tests_nothing_spends_nothing():
    records = [evidence(1, invalid=("no",)), Evidence(2, 1, trained=False), evidence(3, 0.1)]
    assert [d.alpha_spending["num_tested_iterations"] for d in decide_all(records, MonitorSection())] == [0, 0, 1]


def test_bounds_are_those_of_the_level():
    bounds = decide([evidence(gain=0.0)], MonitorSection()).bounds["gain_vs_previous"]
    error = np.sqrt(0.6 * 0.25 / N)
    assert bounds["stop"] == pytest.approx([-2.50 * error, 2.50 * error], rel=0.01)
    assert bounds["harm"] == pytest.approx([-2.96 * error, 2.96 * error], rel=0.01)
    assert bounds["num_prompts"] == N


def test_the_second_validation_set_is_used_when_the_decision_is_open_and_shares_the_budget():
    open_case = evidence(gain=0.02, num_second_validation=N)
    first = decide([open_case], MonitorSection())
    assert (first.decision, first.wants_second_validation, first.num_analyses) == ("INCONCLUSIVE", True, 1)
    assert first.alpha_spending["stop"] == pytest.approx(0.4 * 0.05 / 8)
    with_second_set = replace(
        open_case, outcomes={**open_case.outcomes, ("anchor", "second_validation", 0): counted(-0.04)}
    )
    second = decide([with_second_set], MonitorSection())
    assert (second.decision, second.wants_second_validation, second.num_analyses) == ("PLATEAU", False, 2)
    assert second.bounds["gain_vs_previous"]["num_prompts"] == 2 * N
    assert second.alpha_spending["stop"] == pytest.approx(0.05 / 8)
    closed = evidence(gain=0.1, num_second_validation=N)
    assert not decide([closed], MonitorSection()).wants_second_validation
    # The second validation set is ignored when the first analysis decides.
    ignored = replace(closed, outcomes={**closed.outcomes, ("anchor", "second_validation", 0): counted(-0.3)})
    assert decide([ignored], MonitorSection()).decision == "CONTINUE"


def test_best_is_what_was_shown_to_be_better():
    decisions = decide_all(
        [evidence(1, 0.1), evidence(2, 0.02), evidence(3, 0.02, best=1, gain_vs_best=0.05), evidence(4, -0.2, best=3)],
        MonitorSection(),
    )
    assert [d.best_iteration for d in decisions] == [1, 1, 3, 3]
    assert decisions[3].decision == "HARM" and decisions[3].reason.endswith("use M_3.")


def test_best_is_not_replaced_without_outcomes_against_it_or_at_a_loss_of_passes():
    unknown = decide_all([evidence(1, 0.1), evidence(2, 0.0), evidence(3, 0.1)], MonitorSection())
    assert [d.best_iteration for d in unknown] == [1, 1, 1]
    assert "no usable outcomes against M_1" in unknown[2].notes[-1]
    # Eight more of 800 fail than before, two percentage points of the pass rate: no harm is shown, but it is no new
    # best either.
    assert decide([evidence(1, 0.1, checks=-8 / N)], MonitorSection()).decision == "CONTINUE"
    assert decide([evidence(1, 0.1, checks=-8 / N)], MonitorSection()).best_iteration == 0
    assert decide([evidence(1, 0.1, checks=-7 / N)], MonitorSection()).best_iteration == 1
    assert decide([evidence(1, 0.01, judge=0.2, n=40 * N)], MonitorSection()).decision == "OVEROPT"
    assert decide([evidence(1, 0.01, judge=0.2, n=40 * N)], MonitorSection()).best_iteration == 0


def test_a_lower_pass_rate_is_harm_against_the_best_and_else_against_the_checkpoint_before():
    lost = decide_all([evidence(1, 0.1), evidence(2, 0.02), evidence(3, 0.1, checks=-0.1)], MonitorSection())[2]
    assert lost.decision == "HARM" and "against M_2" in lost.reason
    table = {**evidence(3, 0.1, checks=-0.1).outcomes, ("checks", "verifiable", 1): counted(0.0)}
    fine = decide_all([evidence(1, 0.1), evidence(2, 0.02), Evidence(3, 2, table)], MonitorSection())[2]
    assert fine.decision == "CONTINUE"


def test_drift_is_a_loss_against_the_most_accurate_judge_so_far():
    def gold(t, right):
        values = np.array([1.0] * right + [0.0] * (400 - right))
        pairs = Outcomes(tuple(f"g{i}" for i in range(400)), values)
        return replace(evidence(t, 0.1), outcomes={**evidence(t, 0.1).outcomes, ("self", "gold", -1): pairs})

    assert decisions_of(gold(1, 300), gold(2, 320), gold(3, 310)) == ["CONTINUE"] * 3
    assert decisions_of(gold(1, 300), gold(2, 320), gold(3, 280)) == ["CONTINUE", "CONTINUE", "DRIFT"]
    assert decisions_of(gold(1, 300), gold(2, 320), gold(3, 280), max_gold_loss=0.1)[2] == "CONTINUE"


def test_length_adjustment_removes_a_gain_from_length():
    """Longer responses win, and nothing else: at equal length no gain remains."""
    rng = np.random.default_rng(0)
    deltas = rng.normal(40, 40, N).round()
    z = np.tanh(deltas / np.sqrt(np.mean(deltas**2)))
    values = (rng.random(N) < 0.5 + 0.35 * z).astype(float)
    record = Evidence(1, 0, {("anchor", "validation", 0): Outcomes(tuple(map(str, range(N))), values, deltas)})
    adjusted = decide([record], MonitorSection())
    raw = decide([record], MonitorSection(length_adjusted=False))
    assert raw.decision == "CONTINUE" and raw.bounds["gain_vs_previous"]["stop"][0] > 0.1
    low, high = adjusted.bounds["gain_vs_previous"]["stop"]
    assert low < 0 < high and adjusted.decision != "CONTINUE" and adjusted.best_iteration == 0
    assert any("At equal length" in note for note in adjusted.notes)
    assert adjusted.bounds["raw_gain_vs_previous"] == raw.bounds["gain_vs_previous"]


def test_lengths_of_only_some_prompts_adjust_nothing_with_a_note():
    deltas = np.full(N, 5.0) + np.arange(N) % 7
    deltas[3] = np.nan
    record = Evidence(1, 0, {("anchor", "validation", 0): counted(0.1, deltas=deltas)})
    decision = decide([record], MonitorSection())
    assert (
        decision.bounds["gain_vs_previous"] == decide([evidence(1, 0.1)], MonitorSection()).bounds["gain_vs_previous"]
    )
    assert any("not adjusted for length" in note for note in decision.notes)


def test_outcomes_against_the_best_that_are_mostly_unscored_promote_nothing():
    first, third = [evidence(1, 0.1), evidence(2, 0.02)], evidence(3, 0.02, best=1, gain_vs_best=0.2)
    assert decide([*first, third], MonitorSection()).best_iteration == 3
    few = {**third.outcomes, ("anchor", "validation", 1): replace(counted(0.2), num_unscored=N)}
    assert decide([*first, replace(third, outcomes=few)], MonitorSection()).best_iteration == 1


def test_an_invalid_second_analysis_does_not_refund_the_first():
    record = evidence(gain=0.02, num_second_validation=N)
    broken = {**record.outcomes, ("anchor", "second_validation", 0): replace(counted(0.0), num_unscored=N)}
    decision = decide([replace(record, outcomes=broken)], MonitorSection())
    assert (decision.decision, decision.num_analyses) == ("INVALID", 2)
    assert decision.alpha_spending["stop"] == pytest.approx(0.4 * 0.05 / 8)


def test_an_unresolved_gain_is_noted_with_the_number_of_prompts_needed():
    first, second = decide_all([evidence(1, 0.01, n=200), evidence(2, 0.01, n=200)], MonitorSection())
    assert first.decision == second.decision == "INCONCLUSIVE"
    needed = int(next(word for word in first.notes[0].split() if word.isdigit() and int(word) > 200))
    assert needed == pytest.approx(((2.498 + 0.842) * np.sqrt(0.15) / 0.05) ** 2, rel=0.1)
    assert "For the second time in a row" in second.notes[0] and "For the second time" not in first.notes[0]


def test_starved_needs_the_complete_interval_below_the_limit():
    section = MonitorSection()
    assert starved(evidence(reliability=Interval(0.2, 0.0, 0.39, 50)), section)
    assert not starved(evidence(reliability=Interval(0.2, 0.0, 0.41, 50)), section)
    assert not starved(evidence(), section)
    few, enough = (evidence(reliability=Interval(0.0, 0.0, 0.1, n)) for n in (11, 12))
    assert not starved(few, section) and starved(enough, section)


def test_an_iteration_without_training_starves_unless_all_is_solved():
    def untrained(high, **more):
        return Evidence(1, 0, trained=False, failing=Interval(high / 3, 0.0, high, 64, method="bounded"), **more)

    assert decisions_of(untrained(0.05)) == ["PLATEAU"]  # 0.0167 + 2.50 / 1.96 of the way to 0.05 is below 0.1
    assert decisions_of(untrained(0.2)) == ["STARVED"]
    assert decisions_of(untrained(0.05), delta=0.02) == ["STARVED"]
    assert decisions_of(untrained(0.05, reliability=LOW)) == ["STARVED"]
    decision = decide([untrained(0.05)], MonitorSection())
    assert (
        decision.stopped_by == "PLATEAU"
        and "Nearly all prompts are solved" in decision.reason
        and decision.alpha_spending["num_tested_iterations"] == 1
    )


def test_rows_of_one_prompt_are_one_unit():
    rows = [PromptOutcome("a", "validation", "anchor", 0, x, d) for x, d in ((1.0, 4.0), (0.0, None))]
    rows += [PromptOutcome("b", "validation", "anchor", 0, None), PromptOutcome("c", "validation", "anchor", 0, 0.75)]
    table = tabulate(rows)["anchor", "validation", 0]
    assert table.prompt_ids == ("a", "c") and table.values.tolist() == [0.5, 0.75] and table.num_unscored == 1
    assert table.length_deltas_tokens[0] == 4.0 and np.isnan(table.length_deltas_tokens[1])


def test_evidence_of_a_run_contains_the_parent_checkpoint():
    def summary(t, trained=True, **counts):
        measured = Evaluation(t, {"anchor_valid": 0.0} if trained else {}, {"anchor": "INVALID: it looks away"})
        return IterationSummary(t, counts, {"num_steps": 1} if trained else {}, measured, {})

    first, second, third = evidence_of(
        [summary(1), summary(2, False, num_prompts=4, num_dropped_prompts=4), summary(3, num_overlapping_prompts=2)],
        num_second_validation=7,
    )
    assert [e.previous for e in (first, second, third)] == [0, 1, 1] and first.num_second_validation == 7
    assert first.invalid == ("it looks away",) and "2 training prompts" in third.invalid[1]
    assert not second.trained and second.pair_yield_rate.mean == 0.0


values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), min_size=0, max_size=60)


@st.composite
def records(draw):
    found = []
    for t in range(1, draw(st.integers(1, 4)) + 1):
        outcomes = {}
        keys = [(b, s, k) for b, s in (("anchor", "validation"), ("self", "validation"), ("checks", "verifiable"),
                                       ("anchor", "second_validation")) for k in range(t)]  # fmt: skip
        for key in draw(st.lists(st.sampled_from([*keys, ("self", "gold", -1)]), unique=True)):
            x = np.array(draw(values))
            deltas = draw(st.none() | st.just(np.arange(len(x), dtype=float) - 3) | st.just(np.full(len(x), np.nan)))
            outcomes[key] = Outcomes(tuple(map(str, range(len(x)))), x, deltas, draw(st.integers(0, 5)))
        found.append(
            Evidence(
                t,
                t - 1,
                outcomes,
                trained=draw(st.booleans()),
                num_second_validation=draw(st.sampled_from([0, 20])),
                anchor_examined=draw(st.booleans()),
                tau=draw(st.none() | st.just(Interval(-0.4, -0.5, -0.3, 9))),
                reliability=draw(st.none() | st.just(LOW)),
            )
        )
    return found


@settings(deadline=None, max_examples=80)
@given(found=records(), mode=st.sampled_from(["enforce", "report_only"]))
def test_every_evidence_has_a_decision(found, mode):
    section = MonitorSection(mode=mode)
    decisions = decide_all(found, section)
    assert decisions[-1] == decide(found, section) == decide(found, section, decided=decisions[:-1])
    best = 0
    for record, decision in zip(found, decisions, strict=True):
        json.dumps(asdict(decision), allow_nan=False)
        assert decision.reason.endswith(".")
        assert decision.best_iteration in (best, record.iteration)
        best = decision.best_iteration
        assert decision.stops == (mode == "enforce" and decision.decision in STOPS)
        if decision.wants_second_validation:
            assert decision.decision == "INCONCLUSIVE" and record.num_second_validation


def test_the_order_of_the_prompts_does_not_matter():
    record = evidence(gain=0.03, n=200)
    shuffled = np.random.default_rng(1).permutation(200)
    table = record.outcomes["anchor", "validation", 0]
    other = Outcomes(tuple(table.prompt_ids[i] for i in shuffled), table.values[shuffled])
    moved = replace(record, outcomes={("anchor", "validation", 0): other})
    assert decide([record], MonitorSection()) == decide([moved], MonitorSection())
