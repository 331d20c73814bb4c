"""The monitor: when it stops, what it says, and which checkpoint it names."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import monitoring
from selfreward.recipe import MonitorSection
from selfreward.records import Evaluation, Interval, IterationSummary

ENOUGH = {"num_pairs": 50, "num_judgments": 100, "num_unscored_judgments": 5}
INTERVAL_AT = {"worse": (0.30, 0.20, 0.45), "unclear": (0.52, 0.45, 0.60), "better": (0.70, 0.60, 0.80)}


def interval(mean, low, high):
    return Interval(mean, low, high, num_units=64)


def evaluation(iteration, win="unclear", *, anchor_valid=1.0, passes=None, win_vs_initial=None):
    metrics = {"win_rate_vs_previous": interval(*INTERVAL_AT[win]), "anchor_valid": anchor_valid}
    not_measured = {} if anchor_valid else {"anchor": "INVALID: it follows the position; not the text"}
    if passes is not None:
        metrics["pass_rate_vs_previous"] = interval(*(x - 0.5 for x in INTERVAL_AT[passes]))
    if win_vs_initial is not None:
        metrics["win_rate_vs_initial"] = interval(win_vs_initial, win_vs_initial - 0.2, win_vs_initial + 0.2)
    return Evaluation(iteration, metrics, not_measured)


def summary(iteration, measured=None, counts=None, training=None):
    training = {"num_steps": 3} if training is None else training
    return IterationSummary(iteration, counts or ENOUGH, training, measured or evaluation(iteration), {})


def decide(*history, max_iterations=4, elapsed_s=0.0, **section):
    return monitoring.build(MonitorSection(**section), max_iterations=max_iterations).decide(
        history, elapsed_s=elapsed_s
    )


def test_it_goes_on_when_nothing_speaks_against_it():
    decision = decide(summary(1))
    assert (decision.decision, decision.reason, decision.exit_code, decision.gates) == ("continue", "CONTINUE", 0, ())


def test_it_stops_at_the_last_iteration_and_not_before():
    assert [decide(summary(t)).decision for t in (1, 2, 3, 4)] == ["continue"] * 3 + ["stop"]
    assert decide(summary(4)).reason == "MAX_ITERATIONS" and decide(summary(4)).exit_code == 0


def test_it_stops_at_the_time_limit():
    within, over = (decide(summary(1), elapsed_s=s, max_hours=0.5) for s in (1799.0, 1800.0))
    assert (within.decision, over.decision, over.reason, over.exit_code) == ("continue", "stop", "MAX_HOURS", 0)
    assert over.numbers["elapsed_hours"] == over.numbers["max_hours"] == 0.5


@pytest.mark.parametrize(
    ("counts", "reason", "exit_code"),
    [
        ({**ENOUGH, "num_unscored_judgments": 51}, "TOO_MANY_UNSCORED", 3),
        ({**ENOUGH, "num_unscored_judgments": 100, "num_pairs": 0}, "TOO_MANY_UNSCORED", 3),
        ({**ENOUGH, "num_pairs": 7}, "TOO_FEW_PAIRS", 0),
    ],
)
def test_gates_stop_before_training_and_say_which(counts, reason, exit_code):
    monitor = monitoring.build(MonitorSection(), max_iterations=4)
    assert not monitor.may_train(counts)
    decision = monitor.decide([summary(1, counts=counts)], elapsed_s=0.0)
    assert (decision.decision, decision.reason, decision.exit_code) == ("stop", reason, exit_code)
    assert reason in decision.gates


def test_limits_are_the_last_allowed_value():
    counts = {"num_pairs": 8, "num_judgments": 100, "num_unscored_judgments": 50}
    assert monitoring.build(MonitorSection(), max_iterations=4).may_train(counts)
    assert decide(summary(1, counts=counts)).gates == ()


def test_report_only_writes_the_gates_down_and_goes_on():
    counts = {"num_pairs": 1, "num_judgments": 10, "num_unscored_judgments": 9}
    decision = decide(summary(1, counts=counts), mode="report_only")
    assert decision.decision == "continue"
    assert decision.gates == ("TOO_MANY_UNSCORED", "TOO_FEW_PAIRS")
    assert "90%" in decision.sentence and "1 preference pair is too few" in decision.sentence


def test_without_a_single_pair_no_mode_goes_on():
    counts = {"num_pairs": 0, "num_judgments": 10, "num_unscored_judgments": 0}
    monitor = monitoring.build(MonitorSection(mode="report_only"), max_iterations=4)
    assert not monitor.may_train(counts)
    untrained = Evaluation(1, {}, {"all": "nothing was trained in this iteration"})
    decision = monitor.decide([summary(1, untrained, counts, training={})], elapsed_s=0.0)
    assert (decision.decision, decision.reason, decision.best_iteration) == ("stop", "TOO_FEW_PAIRS", 0)
    assert "use M_0, the model the run began with" in decision.sentence


def test_a_judge_that_gave_no_judgments_has_no_unscored_rate():
    assert decide(summary(1, counts={"num_pairs": 9})).numbers["unscored_rate"] == 0.0


def best(*evaluations):
    return decide(*(summary(e.iteration, e) for e in evaluations)).best_iteration


def test_best_is_the_latest_unless_it_is_shown_to_be_worse():
    assert best(evaluation(1), evaluation(2, "better")) == 2
    assert best(evaluation(1), evaluation(2, "worse")) == 1
    assert best(evaluation(1, "worse")) == 0
    assert best(evaluation(1), evaluation(2, "better", passes="worse")) == 1
    assert best(Evaluation(1, {}, {"all": "?"})) == 1  # it was trained, and nothing is known against it


def test_an_invalid_anchor_shows_nothing():
    assert best(evaluation(1), evaluation(2, "worse", anchor_valid=0.0)) == 2
    assert best(evaluation(1), evaluation(2, "better", anchor_valid=0.0, passes="worse")) == 1


def test_after_a_loss_the_best_must_be_reached_again():
    loss = evaluation(2, "worse", win_vs_initial=0.4)
    first = evaluation(1, "better", win_vs_initial=0.7)
    assert best(first, loss, evaluation(3, "better", win_vs_initial=0.6)) == 1
    assert best(first, loss, evaluation(3, "better", win_vs_initial=0.75)) == 3
    assert best(first, loss, evaluation(3, "better")) == 1  # nothing compares it with the best
    assert best(first, loss, evaluation(3, win_vs_initial=0.75), evaluation(4)) == 4


def test_the_sentence_is_honest():
    unclear = decide(summary(2)).sentence
    assert "52.0%" in unclear and "45.0% to 60.0%" in unclear and "cannot tell better from worse" in unclear
    assert "a gain" in decide(summary(2, evaluation(2, "better"))).sentence
    assert "a loss" in decide(summary(2, evaluation(2, "worse"))).sentence
    invalid = decide(summary(2, evaluation(2, "better", anchor_valid=0.0))).sentence
    assert "says nothing" in invalid and "it follows the position" in invalid and "a gain" not in invalid
    assert "was not measured" in decide(summary(2, Evaluation(2, {}, {}))).sentence
    passes = decide(summary(2, evaluation(2, passes="better"))).sentence
    assert "+20.0 points" in passes and "+10.0 to +30.0" in passes


finite = st.floats(-2, 2)
intervals = st.builds(Interval, mean=finite, low=finite, high=finite, num_units=st.integers(1, 1000))
anything = st.floats(allow_nan=True, allow_infinity=True)
names = st.sampled_from(
    ["win_rate_vs_previous", "win_rate_vs_initial", "pass_rate_vs_previous", "pass_rate_vs_initial", "anchor_valid"]
)
summaries = st.builds(
    IterationSummary,
    iteration=st.just(0),
    counts=st.dictionaries(
        st.sampled_from(["num_pairs", "num_judgments", "num_unscored_judgments"]), st.integers(0, 200)
    ),
    training=st.sampled_from([{}, {"num_steps": 3}]),
    evaluation=st.builds(
        Evaluation,
        iteration=st.just(0),
        metrics=st.dictionaries(names, intervals | anything),
        not_measured=st.dictionaries(st.just("anchor"), st.text(max_size=20)),
    ),
    seconds_by_stage=st.just({}),
)
sections = st.builds(
    MonitorSection,
    mode=st.sampled_from(["enforce", "report_only"]),
    min_pairs=st.integers(1, 100),
    max_unscored_rate=st.floats(0, 1),
    max_hours=st.none() | st.floats(0.01, 100),
)


@settings(deadline=None, max_examples=300)
@given(
    section=sections,
    history=st.lists(summaries, min_size=1, max_size=6),
    max_iterations=st.integers(1, 6),
    elapsed_s=st.floats(0, 1e6),
)
def test_every_history_has_a_decision(section, history, max_iterations, elapsed_s):
    history = [IterationSummary(t, h.counts, h.training, h.evaluation, {}) for t, h in enumerate(history, 1)]
    monitor = monitoring.build(section, max_iterations=max_iterations)
    decision = monitor.decide(history, elapsed_s=elapsed_s)
    last, counts = history[-1], history[-1].counts
    assert decision == monitor.decide(history, elapsed_s=elapsed_s)
    json.dumps(asdict(decision), allow_nan=False)
    assert decision.sentence.endswith(".") and decision.sentence.count("\n") == 0
    if last.iteration >= max_iterations or not monitor.may_train(counts):
        assert decision.decision == "stop"
    if decision.decision == "stop":
        assert decision.reason != "CONTINUE"
    assert ("TOO_FEW_PAIRS" in decision.gates) == (counts.get("num_pairs", 0) < section.min_pairs)
    if section.mode == "enforce" and decision.gates:
        assert (decision.decision, decision.reason) == ("stop", decision.gates[0])
    assert (decision.exit_code == 3) == (decision.reason == "TOO_MANY_UNSCORED")
    assert decision.best_iteration == 0 or (
        history[decision.best_iteration - 1].training or history[decision.best_iteration - 1].evaluation.metrics
    )
