"""Outcomes by prompt, on which the monitor decides: baselines, judges, engine calls, and resuming."""

from dataclasses import replace

import pytest
from cases.evaluation import (
    MODELS,
    NUM_PROMPTS,
    Anchor,
    Engine,
    Prompts,
    TableJudge,
    by_key,
    evaluate,
    evaluator,
    judgment,
    likes_brevity,
    outcomes_of,
    roles,
    run,
)

from selfreward.errors import EngineError
from selfreward.evaluation import tables
from selfreward.evaluation.metrics import MetricTable, put_win_rates
from selfreward.evaluation.preference import Outcome
from selfreward.evaluation.self_outcomes import self_outcomes
from selfreward.monitoring.evidence import tabulate
from selfreward.records import Response
from selfreward.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run", name="test") as made:
        yield made


# -- baselines -----------------------------------------------------------------------------------------------------


def test_baselines_are_the_previous_the_initial_and_a_third_best_checkpoint(store):
    run(store, up_to=2)
    found = evaluate(evaluator(Engine()), store, 3, best=MODELS[1])
    rows = by_key(outcomes_of(store, 3))
    # M_3 and M_2 are good on all twelve prompts, M_1 on eight, M_0 on four.
    assert rows == {
        ("anchor", "validation", 2): pytest.approx([0.5] * 12),
        ("checks", "verifiable", 2): [0.5] * 12,
        ("anchor", "validation", 0): pytest.approx([0.5] * 4 + [0.9] * 8),
        ("checks", "verifiable", 0): [0.5] * 4 + [1.0] * 8,
        ("anchor", "validation", 1): pytest.approx([0.5] * 8 + [0.9] * 4),
        ("checks", "verifiable", 1): [0.5] * 8 + [1.0] * 4,
    }
    assert found.metrics["win_rate_vs_best"].mean == pytest.approx((8 * 0.5 + 4 * 0.9) / 12)
    assert found.metrics["pass_rate_vs_best"].mean == pytest.approx(4 / 12)
    assert "kl_best_nats" not in found.metrics.keys() | found.not_measured.keys()


def test_a_checkpoint_with_two_names_has_one_table(store):
    *_, second = run(store, up_to=2)
    assert {row.against for row in outcomes_of(store, 1)} == {0}
    assert len(outcomes_of(store, 1)) == 2 * NUM_PROMPTS
    assert {row.against for row in outcomes_of(store, 2)} == {1, 0}
    assert not [name for name in second.metrics if name.endswith("_best")]


def test_three_baselines_are_one_call_of_the_anchor_and_each_model_is_loaded_once(store):
    run(store, up_to=2)
    engine = Engine()
    anchor = Anchor(engine)
    evaluate(evaluator(engine, anchor), store, 3, best=MODELS[1])
    assert engine.swaps == ["m3", "m2", "m0"]
    assert anchor.num_comparisons == 2 * (8 + 4)


def test_lengths_are_differences_without_end_tokens(store):
    run(store, up_to=1)
    deltas = {r.prompt_id: r.length_delta_tokens for r in outcomes_of(store, 1) if r.by == "anchor"}
    # "4 is good" for "4 m0 m0 m0", and two texts of one length where both are good or neither is.
    assert [deltas[f"p{i}"] for i in range(12)] == [0.0] * 4 + [-1.0] * 4 + [0.0] * 4


def test_the_monitor_finds_its_tables_and_the_unscored(store):
    run(store, up_to=0)
    engine = Engine()
    evaluate(evaluator(engine, Anchor(engine, unreadable=("p4", "p9"))), store, 1)
    found = tabulate(outcomes_of(store, 1))
    assert found.keys() == {("anchor", "validation", 0), ("checks", "verifiable", 0)}
    anchor = found["anchor", "validation", 0]
    assert (len(anchor.values), anchor.num_unscored) == (10, 2)
    assert anchor.length_deltas_tokens is not None


def test_win_rates_at_equal_length_remove_the_effect_of_length():
    outcomes = [Outcome(f"p{i}", 0.9 if i % 4 else 0.1) for i in range(200)]
    deltas = [30.0 if i % 4 else -30.0 for i in range(200)]
    table = MetricTable()
    put_win_rates(
        table, "win_rate_vs_previous", [*outcomes, Outcome("lost", None)], [*deltas, 999.0], same=[False], seed=0
    )
    assert table.metrics["win_rate_vs_previous"].mean == pytest.approx(0.7)
    assert table.metrics["length_adjusted_win_rate_vs_previous"].mean == pytest.approx(0.5)


# -- the run's own judge -------------------------------------------------------------------------------------------


def test_the_runs_judge_scores_each_text_once_with_the_weights_that_labelled(store):
    run(store, up_to=2, judge=TableJudge(likes_brevity))
    judge = TableJudge(likes_brevity)
    found = evaluate(evaluator(Engine(), judge=judge), store, 3, best=MODELS[1])
    # Prompts 0 to 3: all models write the same. 4 to 7: M_0 does not. 8 to 11: neither M_0 nor M_1 does.
    [(texts, policy)] = judge.calls
    assert policy == "m2"
    assert len(texts) == len(set(texts)) == 4 * 2 + 4 * 3
    rows = by_key(outcomes_of(store, 3))
    assert rows["self", "validation", 2] == [0.5] * 12
    assert rows["self", "validation", 1] == [0.5] * 8 + [1.0] * 4
    assert rows["self", "validation", 0] == [0.5] * 4 + [1.0] * 8
    assert found.metrics["self_win_rate_vs_best"].mean == pytest.approx((8 * 0.5 + 4) / 12)
    assert "length_adjusted_self_win_rate_vs_best" in found.metrics
    stored = list(store.read(3, tables.SELF_JUDGMENTS))
    assert len(stored) == len(texts) == len({judged.id for judged in stored})


def test_a_response_that_the_judge_cannot_score_has_no_outcome(store):
    run(store, up_to=1, judge=TableJudge(lambda text: None if "5" in text and "m0" in text else len(text)))
    rows = by_key(outcomes_of(store, 1))
    assert rows["self", "validation", 0] == [0.5] * 4 + [0.0, None, 0.0, 0.0] + [0.5] * 4


def test_a_judge_that_can_score_nothing_leaves_no_rows_and_a_reason(store):
    found = run(store, up_to=1)[1]  # a verifier, and validation prompts without checks
    assert "no_checks" in found.not_measured["self_win_rate_vs_previous"]
    assert "no_checks" in found.not_measured["length_adjusted_self_win_rate_vs_initial"]
    assert {row.by for row in outcomes_of(store, 1)} == {"anchor", "checks"}


def test_the_runs_judge_can_be_left_out(store):
    judge = TableJudge(likes_brevity)
    found = run(store, up_to=1, judge=judge, self_judge=False)[1]
    assert judge.calls == [] and "self" not in {row.by for row in outcomes_of(store, 1)}
    assert found.not_measured["self_win_rate_vs_previous"] == "evaluation.self_judge is false"


def test_the_same_text_is_a_tie_without_a_query_of_a_judge(store):
    run(store, up_to=0)
    judge = TableJudge(likes_brevity)
    same = replace(MODELS[0], id="m0 again")
    evaluator(Engine(), judge=judge).evaluate(store, 1, roles(1, trained=same))
    assert judge.calls == []
    assert by_key(outcomes_of(store, 1))["self", "validation", 0] == [0.5] * 12


def self_outcome(text, other_text, score, other_score):
    ours, theirs = (
        Response(f"p0/{who}", "p0", (1,), (2,), None, said, "stop", 0, who)
        for who, said in (("new", text), ("old", other_text))
    )
    [found] = self_outcomes(
        [ours], [theirs], [judgment(ours, score), judgment(theirs, other_score)], [[ours], [theirs]]
    )
    return found.value


def test_equal_scores_are_a_tie_up_to_rounding():
    assert self_outcome("a", "b", 3.0, 3.0) == 0.5
    assert self_outcome("a", "b", 0.1 + 0.2, 0.3) == 0.5
    assert self_outcome("a", "b", 3.01, 3.0) == 1.0


def test_a_model_without_text_loses():
    assert self_outcome("", "b", None, 1.0) == 0.0
    assert self_outcome("a", "<think>and nothing else", 1.0, None) == 1.0
    assert self_outcome("", "<think>and nothing else", 1.0, None) == 0.5
    assert self_outcome("a", "b", None, 1.0) is None


def test_a_kill_while_the_judge_judges_loses_one_shard(store, tmp_path):
    with Store(tmp_path / "other", name="test") as undisturbed:
        expected = run(undisturbed, up_to=1, judge=TableJudge(likes_brevity))[1]
        rows = outcomes_of(undisturbed, 1)
    run(store, up_to=0, shard_prompts=5)
    killed = TableJudge(likes_brevity, fail_at=2)
    with pytest.raises(EngineError):
        evaluate(evaluator(Engine(), judge=killed, shard_prompts=5), store, 1)
    after = TableJudge(likes_brevity)
    assert evaluate(evaluator(Engine(), judge=after, shard_prompts=5), store, 1) == expected
    assert outcomes_of(store, 1) == rows
    assert killed.calls[1] == after.calls[0] and len(killed.calls) + len(after.calls) == 2 + 2
    again = TableJudge(likes_brevity)
    assert evaluate(evaluator(Engine(), judge=again, shard_prompts=5), store, 1) == expected
    assert again.calls == []


# -- second validation and test sets
# ----------------------------------------------------------------------------------------------


class WithReserve(Prompts):
    second_validation = 9


def evaluate_second_validation(store, iteration, *, best, engine=None, **options):
    engine = engine or Engine()
    made = evaluator(engine, prompts=WithReserve(), **options)
    made.evaluate_second_validation(store, iteration, roles(iteration, best))
    return engine


def test_the_second_validation_set_compares_three_models_and_gives_only_outcomes(store):
    engine = evaluate_second_validation(store, 2, best=MODELS[0])
    rows = outcomes_of(store, 2, tables.SECOND_VALIDATION_OUTCOMES)
    assert by_key(rows) == {
        ("anchor", "second_validation", 1): pytest.approx([0.5] * 8 + [0.9]),
        ("anchor", "second_validation", 0): pytest.approx([0.5] * 4 + [0.9] * 5),
    }
    assert {row.prompt_id for row in rows} == {f"r{i}" for i in range(9)}
    assert engine.swaps == ["m2", "m1", "m0"] and engine.num_requests == 3 * 9


def test_a_best_that_is_the_previous_one_is_sampled_once(store):
    engine = evaluate_second_validation(store, 2, best=MODELS[1])
    assert {row.against for row in outcomes_of(store, 2, tables.SECOND_VALIDATION_OUTCOMES)} == {1}
    assert engine.num_requests == 2 * 9


def test_responses_of_an_earlier_second_analysis_are_reused(store, tmp_path):
    evaluate_second_validation(store, 2, best=MODELS[1])
    engine = evaluate_second_validation(store, 3, best=MODELS[1])
    # M_2 responded in its own iteration, M_1 in that of M_2, where it is called previous.
    assert engine.swaps == ["m3", "m1", "m0"] and engine.num_requests == 2 * 9
    with Store(tmp_path / "other", name="test") as fresh:
        evaluate_second_validation(fresh, 3, best=MODELS[1])
        assert outcomes_of(fresh, 3, tables.SECOND_VALIDATION_OUTCOMES) == outcomes_of(
            store, 3, tables.SECOND_VALIDATION_OUTCOMES
        )
    names = {name for name in store.manifest["files"] if name.startswith("iteration-01/")}
    assert names == set()  # a finished iteration does not change


def test_a_killed_second_analysis_is_resumed(store):
    with pytest.raises(EngineError):
        evaluate_second_validation(
            store, 2, best=MODELS[0], engine=Engine(fail_when=lambda e: e.swaps == ["m2", "m1", "m0"])
        )
    engine = evaluate_second_validation(store, 2, best=MODELS[0])
    assert engine.swaps == ["m0"] and engine.num_requests == 9
    assert len(outcomes_of(store, 2, tables.SECOND_VALIDATION_OUTCOMES)) == 2 * 9


class WithSeal(Prompts):
    test_set = 10


def run_test(store, iteration, *, best, prompts=None, engine=None):
    made = evaluator(engine or Engine(), prompts=prompts or WithSeal())
    return made.run_test(store, iteration, roles(iteration, best))


def test_the_test_set_compares_the_best_with_the_initial(store):
    found = run_test(store, 3, best=MODELS[1])
    assert found.metrics["test_win_rate_vs_initial"].mean == pytest.approx((6 * 0.5 + 4 * 0.9) / 10)
    assert found.metrics["length_adjusted_test_win_rate_vs_initial"].num_units == 10
    assert found.metrics["anchor_valid"] in (0.0, 1.0)
    assert by_key(outcomes_of(store, 3, tables.TEST_OUTCOMES)) == {
        ("anchor", "test", 0): pytest.approx([0.5] * 4 + [0.9] * 4 + [0.5] * 2)
    }
    again = Engine()
    assert run_test(store, 3, best=MODELS[1], engine=again) == found
    assert again.num_requests == 0


@pytest.mark.parametrize(("best", "prompts"), [(0, WithSeal), (1, Prompts)])
def test_with_nothing_to_compare_the_test_set_is_not_sampled(store, best, prompts):
    engine = Engine()
    assert run_test(store, 3, best=MODELS[best], prompts=prompts(), engine=engine) is None
    assert not store.has(3, tables.TEST_OUTCOMES) and engine.num_requests == 0


def test_held_out_responses_that_are_stuck_or_never_end_are_counted(store):
    class Stuck(Engine):
        def sample(self, request):
            made = super().sample(request)
            return replace(made, token_ids=(7,) * 15, finish_reason="length") if b"0" in bytes(made.token_ids) else made

    found = evaluate(evaluator(Stuck()), store, 0).metrics
    # Prompts 0 and 10, and those whose text names M_0.
    assert found["repetition_rate"].mean == found["truncation_rate"].mean == pytest.approx(9 / 12)
    assert found["end_of_sequence_rate"].mean == pytest.approx(3 / 12)


def test_reasoning_does_not_count_for_checks(store):
    class Thinking(Engine):
        def sample(self, request):
            made = super().sample(request)
            return replace(made, text=f"<think>good?</think>{made.text}")

    assert evaluate(evaluator(Thinking()), store, 0).metrics["pass_rate"].mean == pytest.approx(4 / 12)


# -- the responses did not change ------------------------------------------------------------------------------------


def test_equal_responses_have_no_win_rate():
    """The anchor is not asked about equal texts, so 0.5 would be no measurement."""
    outcomes = [Outcome(f"p{i}", 0.5) for i in range(3)]
    table = MetricTable()
    put_win_rates(table, "win_rate_vs_initial", outcomes, [0.0] * 3, same=[True] * 3, seed=0)
    put_win_rates(table, "win_rate_vs_previous", outcomes, [0.0] * 3, same=[True, True, False], seed=0)
    reason = "same responses: the two models' texts are equal on all 3 prompts"
    assert table.not_measured["win_rate_vs_initial"] == reason
    assert table.not_measured["length_adjusted_win_rate_vs_initial"] == reason
    assert table.metrics["win_rate_vs_previous"].mean == 0.5
    assert "win_rate_vs_initial" not in table.metrics
