"""The monitor of a run: checks before training, limits, interventions before a stop, and its texts."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import monitoring, recipe_file
from selfreward.monitoring.limits import failed_checks
from selfreward.recipe import InterventionsSection, MonitorSection
from selfreward.records import Decision, Evaluation, Interval, IterationSummary, PromptOutcome

TINY = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
ENOUGH = {
    "num_prompts": 60, "num_dropped_prompts": 10, "num_pairs": 50, "num_judgments": 100, "num_unscored_judgments": 5,
}  # fmt: skip
N = 1600
SHARE = {"gain": 0.9, "plateau": 0.5, "harm": 0.1, "open": 0.53}
"""Share of N prompts on which M_t is preferred to M_{t-1}; there are no ties."""
TAU = {"drift": -0.5}


def outcomes(t, share, *, set="validation", n=N):
    wins = round(n * share)
    return tuple(PromptOutcome(f"{set}-{i}", set, "anchor", t - 1, 1.0 if i < wins else 0.0) for i in range(n))


def judged(*, reliability=0.8, tau=0.5):
    def interval(mean):
        return Interval(mean, mean - 0.05, mean + 0.05, 60)

    return Evaluation(1, {"judge_reliability": interval(reliability), "judge_tau_previous": interval(tau)})


def summary(t, kind="gain", counts=None, *, judging=None, second_validation=None):
    """A trained iteration with a gain, a plateau, a drift, ..."""
    found = outcomes(t, SHARE.get(kind, SHARE["gain"]))
    found += () if second_validation is None else outcomes(t, SHARE[second_validation], set="second_validation")
    measured = Evaluation(t, {"win_rate_vs_previous": 0.5})
    judging = judging or judged(tau=TAU.get(kind, 0.5))
    return IterationSummary(t, counts or ENOUGH, {"num_steps": 3}, measured, {}, judging=judging, outcomes=found)


def untrained(t, counts=None, judging=None):
    nothing = Evaluation(t, {}, {"all": "nothing was trained in this iteration"})
    return IterationSummary(t, counts or {**ENOUGH, "num_pairs": 3}, {}, nothing, {}, judging=judging or judged())


def run(*summaries, max_iterations=8, elapsed_s=0.0, num_second_validation=0, recipe=None, **section):
    """The decisions on the iterations of a run, one after the other."""
    settings = recipe.monitor if recipe is not None else MonitorSection(length_adjusted=False, **section)
    monitor = monitoring.build(
        settings, max_iterations=max_iterations, num_second_validation=num_second_validation, recipe=recipe
    )
    decided = []
    for t in range(1, len(summaries) + 1):
        decided.append(monitor.decide(summaries[:t], tuple(decided), elapsed_s=elapsed_s))
    return decided


def ends(*summaries, **more):
    return [(d.decision, d.stopped_by) for d in run(*summaries, **more)]


def interventions(**lists):
    return {"interventions": InterventionsSection(**lists)}


def test_it_continues_while_iterations_gain():
    (decision,) = run(summary(1))
    assert (decision.decision, decision.stopped_by, decision.exit_code, decision.failed_checks) == (
        "CONTINUE",
        "",
        0,
        (),
    )
    assert decision.best_iteration == 1


def test_it_ends_at_the_last_iteration_and_not_before():
    row = [summary(t) for t in (1, 2, 3, 4)]
    assert ends(*row, max_iterations=4) == [("CONTINUE", "")] * 3 + [("CONTINUE", "MAX_ITERATIONS")]
    last = run(*row, max_iterations=4)[-1]
    assert last.exit_code == 0 and last.reason.endswith("; stopped after iteration 4: the recipe's maximum is 4.")


def test_it_ends_at_the_time_limit():
    (within,), (over,) = (run(summary(1), elapsed_s=s, max_hours=0.5) for s in (1799.0, 1800.0))
    assert (within.stopped_by, over.stopped_by, over.exit_code) == ("", "MAX_HOURS", 0)
    assert over.numbers["elapsed_hours"] == over.numbers["max_hours"] == 0.5
    assert "0.50 hours of 0.5 allowed" in over.reason


def test_a_decision_to_stop_takes_precedence_over_limits():
    row = [summary(1), summary(2, "harm")]
    assert ends(*row, max_iterations=2, max_hours=1.0, elapsed_s=9e9) == [("CONTINUE", "MAX_HOURS"), ("HARM", "HARM")]
    harmed = run(*row)[-1]
    assert harmed.best_iteration == 1, "what did harm is not the checkpoint to use"
    assert harmed.reason.endswith("use M_1; stopped after iteration 2.")


@pytest.mark.parametrize(
    ("counts", "stopped_by", "exit_code", "words"),
    [
        (
            {"num_unscored_judgments": 51, "num_pairs": 50},
            "TOO_MANY_UNSCORED",
            3,
            "51% of the judgments are unscored (at most 50%",
        ),
        ({"num_unscored_judgments": 100, "num_pairs": 0}, "TOO_MANY_UNSCORED", 3, "recorded without stopping"),
        ({"num_pairs": 7}, "TOO_FEW_PAIRS", 3, "7 preference pairs are too few to learn from (8 are required)"),
        ({"num_pairs": 60, "num_judgment_pairs": 59}, "TOO_FEW_PAIRS", 3, "1 preference pair is too few"),
    ],
)
def test_failed_checks_prevent_training_and_are_named(counts, stopped_by, exit_code, words):
    counts = {**ENOUGH, **counts}
    monitor = monitoring.build(MonitorSection(), max_iterations=4)
    assert not monitor.may_train(counts, judged())
    (decision,) = run(untrained(1, counts))
    assert (decision.decision, decision.stopped_by, decision.exit_code) == ("STARVED", stopped_by, exit_code)
    assert stopped_by in decision.failed_checks and words in decision.reason
    assert decision.best_iteration == 0


def test_limits_are_the_last_allowed_value():
    counts = {"num_pairs": 8, "num_judgments": 100, "num_unscored_judgments": 50}
    assert failed_checks(MonitorSection(), counts) == ()
    assert failed_checks(MonitorSection(), {"num_pairs": 9}) == ()  # no judgments, so none is unscored
    assert monitoring.build(MonitorSection(), max_iterations=4).may_train(counts, None)


@pytest.mark.parametrize(
    ("judging", "num_dropped", "may_train"),
    [
        (judged(reliability=0.34), 10, False),
        (judged(reliability=0.36), 10, True),  # the interval reaches the limit
        (judged(), 250, True),  # few prompts gave a pair, but these can be learnt from
        (None, 10, True),
    ],
)
def test_a_judge_that_is_too_noisy_trains_nothing(judging, num_dropped, may_train):
    counts = {**ENOUGH, "num_prompts": 50 + num_dropped, "num_dropped_prompts": num_dropped}
    assert monitoring.build(MonitorSection(), max_iterations=4).may_train(counts, judging) == may_train
    assert monitoring.build(MonitorSection(mode="report_only"), max_iterations=4).may_train(counts, judging)
    if not may_train:
        (decision,) = run(replace(untrained(1, counts), judging=judging))
        assert decision.decision == "STARVED" and "reliability is" in decision.reason


def test_report_only_records_and_continues():
    row = [summary(1, "plateau"), summary(2, "harm"), summary(3, "drift", {**ENOUGH, "num_pairs": 1})]
    found = run(*row, mode="report_only", **interventions(PLATEAU=["larger_beta"], DRIFT=["pin_judge", "stop"]))
    assert [(d.decision, d.stopped_by, d.intervention) for d in found] == [
        ("PLATEAU", "", ""), ("HARM", "", ""), ("DRIFT", "", ""),
    ]  # fmt: skip
    assert found[0].notes[-1] == "In mode enforce the next iteration would try larger_beta."
    assert found[2].failed_checks == ("TOO_FEW_PAIRS",) and "1 preference pair is too few" in found[2].reason
    assert ends(*row, mode="report_only", max_iterations=3)[-1] == ("DRIFT", "MAX_ITERATIONS")


def test_without_a_single_pair_every_mode_stops():
    counts = {"num_pairs": 0, "num_judgments": 10, "num_unscored_judgments": 0}
    assert not monitoring.build(MonitorSection(mode="report_only"), max_iterations=4).may_train(counts, None)
    (decision,) = run(untrained(1, counts), mode="report_only")
    assert "0 preference pairs are too few" in decision.reason
    assert ends(untrained(1, counts), mode="report_only") == [("STARVED", "TOO_FEW_PAIRS")]


@pytest.mark.parametrize("kind", ["plateau", "starved"])
def test_listed_interventions_are_tried_in_order_before_the_run_stops(kind):
    name = kind.upper()
    bad = (
        (lambda t: summary(t, kind)) if kind == "plateau" else (lambda t: untrained(t, judging=judged(reliability=0.1)))
    )
    found = run(*(bad(t) for t in (1, 2, 3)), **interventions(**{name: ["larger_beta", "higher_temperature"]}))
    last = "TOO_FEW_PAIRS" if kind == "starved" else name
    assert [(d.decision, d.intervention, d.stopped_by) for d in found] == [
        (name, "larger_beta", ""), (name, "higher_temperature", ""), (name, "", last),
    ]  # fmt: skip
    assert [d.effect and (d.effect["name"], d.effect["helped"]) for d in found] == [
        None, ("larger_beta", False), ("higher_temperature", False),
    ]  # fmt: skip
    assert "; the next iteration tries larger_beta" in found[0].reason
    assert "; stopped after iteration 3" in found[2].reason


def test_an_effect_has_the_number_before_and_after():
    found = run(
        untrained(1, judging=judged(reliability=0.2)), summary(2, judging=judged(reliability=0.7)),
        **interventions(STARVED=["more_draws"]),
    )  # fmt: skip
    assert found[1].effect == {
        "name": "more_draws", "tried_for": "STARVED", "helped": True,
        "number": "reliability", "before": 0.2, "after": 0.7,
    }  # fmt: skip
    assert Decision.from_json(json.loads(json.dumps(asdict(found[1])))) == found[1]


def test_a_drift_stops_only_when_the_recipe_lists_stop():
    drifts = [summary(1), summary(2, "drift"), summary(3, "drift")]
    assert ends(*drifts)[1:] == [("DRIFT", "")] * 2
    assert ends(*drifts, **interventions(DRIFT=["fresh_prompts"]))[1:] == [("DRIFT", "")] * 2
    assert ends(*drifts, **interventions(DRIFT=["fresh_prompts", "stop"]))[1:] == [("DRIFT", ""), ("DRIFT", "DRIFT")]


def test_an_inapplicable_intervention_is_skipped():
    listed = "monitor.interventions.PLATEAU=[more_draws, larger_beta]"
    recipe = recipe_file.load(TINY, ["judging={kind: verifier}", "monitor.mode=enforce", listed])
    assert run(summary(1, "plateau"), recipe=recipe)[0].intervention == "larger_beta"


def test_at_a_limit_nothing_is_tried():
    found = run(summary(1, "plateau"), max_iterations=1, **interventions(PLATEAU=["larger_beta"]))
    assert (found[0].decision, found[0].stopped_by, found[0].intervention) == ("PLATEAU", "MAX_ITERATIONS", "")


def test_an_open_decision_waits_for_the_second_validation_set():
    (first,) = run(summary(1, "open"), max_iterations=1, num_second_validation=N)
    assert (first.decision, first.wants_second_validation, first.stopped_by) == ("INCONCLUSIVE", True, "")
    (second,) = run(summary(1, "open", second_validation="gain"), max_iterations=1, num_second_validation=N)
    assert (second.decision, second.wants_second_validation, second.num_analyses) == ("CONTINUE", False, 2)
    assert second.stopped_by == "MAX_ITERATIONS"


@pytest.mark.parametrize("mode", ["enforce", "report_only"])
def test_an_inconclusive_history_never_stops(mode):
    few = replace(summary(1), outcomes=outcomes(1, 0.5, n=4))
    broken = replace(summary(2), evaluation=Evaluation(2, {"anchor_valid": 0.0}, {"anchor": "INVALID: no; reason"}))
    assert ends(few, broken, mode=mode) == [("INCONCLUSIVE", ""), ("INVALID", "")]


kinds = st.sampled_from(["gain", "plateau", "harm", "open", "drift", "untrained"])
lists = st.lists(st.sampled_from(["fresh_prompts", "larger_beta", "stop"]), max_size=2)


@settings(deadline=None, max_examples=60)
@given(
    row=st.lists(kinds, min_size=1, max_size=4),
    mode=st.sampled_from(["enforce", "report_only"]),
    listed=st.builds(InterventionsSection, STARVED=lists, DRIFT=lists, PLATEAU=lists),
    num_pairs=st.integers(0, 20),
    num_unscored=st.integers(0, 100),
    max_iterations=st.integers(1, 4),
    hours=st.floats(0, 9),
)
def test_every_history_has_a_decision(row, mode, listed, num_pairs, num_unscored, max_iterations, hours):
    counts = {"num_pairs": num_pairs, "num_judgments": 100, "num_unscored_judgments": num_unscored}
    history = [untrained(t, counts) if kind == "untrained" else summary(t, kind) for t, kind in enumerate(row, 1)]
    section = {"mode": mode, "interventions": listed, "max_hours": 5.0}
    found = run(*history, max_iterations=max_iterations, elapsed_s=hours * 3600, **section)
    assert found == run(*history, max_iterations=max_iterations, elapsed_s=hours * 3600, **section)
    for decision in found:
        json.dumps(asdict(decision), allow_nan=False)
        assert decision.reason.endswith(".") and "\n" not in decision.reason and ".." not in decision.reason
        assert not (decision.stops and decision.intervention)
        trained = any(kind != "untrained" for kind in row[: decision.iteration])
        needs_a_person = decision.stops and (not trained or decision.stopped_by == "TOO_MANY_UNSCORED")
        assert decision.exit_code == (3 if needs_a_person else 0)
        if decision.iteration >= max_iterations or hours >= 5:
            assert decision.stops
        if mode == "report_only":
            assert decision.stopped_by in ("", "MAX_ITERATIONS", "MAX_HOURS", "TOO_FEW_PAIRS")
            assert not decision.intervention
