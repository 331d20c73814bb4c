"""The evaluator on a store and on an engine that is a table: metrics, engine calls, and resuming."""

import math
from dataclasses import replace

import pytest
from cases.evaluation import (
    CHECKS,
    MODELS,
    NUM_PROMPTS,
    Anchor,
    Engine,
    Prompts,
    evaluate,
    evaluator,
    outcomes_of,
    roles,
    run,
)

from selfreward.errors import EngineError, RecipeError, StoreError
from selfreward.evaluation import tables
from selfreward.evaluation.tables import GREEDY_RESPONSES, VERIFIABLE_RESPONSES
from selfreward.records import Interval, Message, Prompt
from selfreward.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run", name="test") as made:
        yield made


def test_the_initial_model_is_measured_alone(store):
    engine = Engine()
    found = evaluate(evaluator(engine), store, 0)
    assert found.metrics["pass_rate"].mean == pytest.approx(4 / 12)
    assert not [name for name in found.metrics if "_vs_" in name or name.startswith("kl_")]
    assert engine.num_requests == 2 * NUM_PROMPTS
    assert {"response_tokens", "truncation_rate", "distinct_1", "distinct_2", "distinct_3"} <= found.metrics.keys()


def test_known_values_are_measured(store):
    _, first, second = run(store)
    # M_1 is good where M_0 was not on 4 of 12 prompts (0.9), equal in text on 4, and differs without merit on 4 (0.5).
    assert first.metrics["win_rate_vs_previous"].mean == pytest.approx((4 * 0.9 + 8 * 0.5) / 12)
    assert second.metrics["win_rate_vs_previous"].mean == pytest.approx((4 * 0.9 + 8 * 0.5) / 12)
    assert second.metrics["win_rate_vs_initial"].mean == pytest.approx((8 * 0.9 + 4 * 0.5) / 12)
    assert second.metrics["pass_rate"].mean == 1.0
    assert second.metrics["pass_rate_vs_previous"].mean == pytest.approx(4 / 12)
    assert second.metrics["pass_rate_vs_initial"].mean == pytest.approx(8 / 12)
    assert second.metrics["same_response_rate_vs_previous"].mean == pytest.approx(8 / 12)
    assert second.metrics["anchor_valid"] == 1.0
    assert second.metrics["anchor_unscored_rate"] == 0.0
    # "drawn here" and the end token are 11 tokens; a token of M_2's is 0.1 nats less likely under M_2 than under M_1.
    # Every draw gives the same value, so there is no interval.
    assert second.metrics["kl_previous_nats"] == pytest.approx(-1.1)
    assert second.metrics["kl_initial_nats"] == pytest.approx(-2.2)
    assert {name for name, m in second.metrics.items() if isinstance(m, Interval) and m.num_units != NUM_PROMPTS} == {
        "position_consistency_rate"
    }


def test_length_counts_no_end_token_and_pairs_by_prompt(store):
    zeroth, first, _ = run(store)
    lengths = [
        [len(f"{i} is good") if i < 4 + 4 * t else len(f"{i} m{t} m{t} m{t}") for i in range(12)] for t in (0, 1)
    ]
    assert zeroth.metrics["response_tokens"].mean == pytest.approx(sum(lengths[0]) / 12)
    assert first.metrics["response_tokens_vs_initial"].mean == pytest.approx((sum(lengths[1]) - sum(lengths[0])) / 12)


def test_truncated_responses_are_compared_prompt_by_prompt(store):
    class Tight(Engine):
        """M_0 ends in time on each prompt; M_1's token limit is too low for its text on the last four."""

        def sample(self, request):
            return super().sample(
                replace(request, max_tokens=10 if self.loaded.iteration and request.temperature < 1 else 20)
            )

    evaluate(evaluator(Tight()), store, 0)
    found = evaluate(evaluator(Tight()), store, 1)
    num_truncated = sum(len(f"{i} is good" if i < 8 else f"{i} m1 m1 m1") >= 10 for i in range(NUM_PROMPTS))
    change = found.metrics["truncation_rate_vs_initial"]
    assert change.mean == found.metrics["truncation_rate"].mean == pytest.approx(num_truncated / 12)
    assert 0 < num_truncated < 12 and change.num_units == NUM_PROMPTS


def test_in_the_first_iteration_the_same_work_is_not_done_twice(store):
    run(store, up_to=0)
    engine = Engine()
    anchor = Anchor(engine)
    first = evaluate(evaluator(engine, anchor), store, 1)
    for name in ("win_rate_vs", "pass_rate_vs", "response_tokens_vs"):
        assert first.metrics[f"{name}_previous"] == first.metrics[f"{name}_initial"]
    assert first.metrics["kl_previous_nats"] == first.metrics["kl_initial_nats"]
    assert anchor.num_comparisons == 2 * 8  # four of the twelve texts are the same
    # Responses, verifiable responses, draws; draws scored by M_1 and by M_0.
    assert engine.num_requests == 5 * NUM_PROMPTS
    assert engine.swaps == ["m1", "m0"]


def test_the_engine_holds_each_model_once(store):
    run(store, up_to=1)
    engine = Engine()
    evaluate(evaluator(engine), store, 2)
    assert engine.swaps == ["m2", "m1", "m0"]


def test_a_killed_evaluation_resumes_where_it_stopped(store, tmp_path):
    with Store(tmp_path / "other", name="test") as undisturbed:
        expected = run(undisturbed)[2]
    run(store, up_to=1)
    killed = Engine(fail_when=lambda engine: engine.swaps == ["m2", "m1", "m0"])
    with pytest.raises(EngineError):
        evaluate(evaluator(killed), store, 2)
    after = Engine()
    assert evaluate(evaluator(after), store, 2) == expected
    assert after.swaps == ["m0"]
    assert after.num_requests == NUM_PROMPTS  # M_0 scores; all else was stored
    again = Engine()
    assert evaluate(evaluator(again), store, 2) == expected
    assert again.swaps == []


def test_shards_change_nothing(store, tmp_path):
    with Store(tmp_path / "other", name="test") as sharded:
        assert run(sharded, shard_prompts=5) == run(store)


def test_an_anchor_with_position_bias_is_reported_as_invalid(store):
    run(store, up_to=0)
    engine = Engine()
    found = evaluate(evaluator(engine, Anchor(engine, position_bias=0.45)), store, 1)
    assert found.metrics["anchor_valid"] == 0.0
    assert found.not_measured["anchor"].startswith("INVALID: ")
    assert found.metrics["position_consistency_rate"].mean < 0.6
    assert "win_rate_vs_previous" in found.metrics


def test_unreadable_comparisons_are_missing_and_counted(store):
    run(store, up_to=0)
    engine = Engine()
    found = evaluate(evaluator(engine, Anchor(engine, unreadable=("p4", "p9"))), store, 1)
    assert found.metrics["win_rate_vs_previous"].mean == pytest.approx((3 * 0.9 + 7 * 0.5) / 10)
    assert found.metrics["win_rate_vs_previous"].num_units == 10
    assert found.metrics["anchor_unscored_rate"] == pytest.approx(4 / 16)


def test_a_policy_that_did_not_change_has_no_win_rate_and_the_anchor_is_not_blamed(store):
    run(store, up_to=0)
    engine = Engine()
    same = replace(MODELS[0], id="m0 again", iteration=0)
    found = evaluator(engine).evaluate(store, 1, roles(1, trained=same))
    assert not [name for name in found.metrics if "win_rate" in name]
    assert found.not_measured["win_rate_vs_previous"].startswith("same responses")
    assert found.metrics["same_response_rate_vs_previous"].mean == 1.0
    assert "anchor_valid" not in found.metrics and "not used" in found.not_measured["anchor_valid"]
    assert found.metrics["kl_initial_nats"] == 0.0


def test_without_verifiable_prompts_the_pass_rate_is_not_measured(store):
    class NoChecks(Prompts):
        def verifiable_prompts(self):
            return []

    found = run(store, up_to=1, prompts=NoChecks())[1]
    assert "pass_rate" in found.not_measured
    assert not [name for name in found.metrics if name.startswith("pass_rate")]


def test_draws_for_kl_are_of_the_policy_itself_and_seeds_do_not_depend_on_the_iteration(store):
    run(store, temperature=0.7)
    draws = list(store.read(1, tables.KL_RESPONSES))
    assert {r.text for r in draws} == {"drawn here"} and len(draws) == NUM_PROMPTS
    seeds = [[r.seed for r in store.read(t, tables.RESPONSES)] for t in (1, 2)]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == NUM_PROMPTS


def test_a_baseline_that_was_never_evaluated_is_an_error(store):
    with pytest.raises(StoreError, match="M_0 has no stored responses"):
        evaluate(evaluator(Engine()), store, 1)


class Changed(Prompts):
    """The prompts of `Prompts` after a change: another id in the middle, or the last one removed."""

    def __init__(self, kind, how):
        self.kind, self.how = kind, how

    def changed(self, prompts, kind):
        if kind != self.kind:
            return prompts
        return prompts[:-1] if self.how == "fewer" else [*prompts[:3], replace(prompts[3], id="new"), *prompts[4:]]

    def validation_prompts(self):
        return self.changed(super().validation_prompts(), "validation")

    def verifiable_prompts(self):
        return self.changed(super().verifiable_prompts(), "verifiable")


@pytest.mark.parametrize(("how", "said"), [("other", "where 'new' was expected"), ("fewer", "12 records for 11")])
@pytest.mark.parametrize("kind", ["validation", "verifiable"])
def test_responses_to_other_prompts_are_never_compared(store, kind, how, said):
    run(store, up_to=0)
    engine = Engine()
    anchor = Anchor(engine)
    with pytest.raises(StoreError, match=said) as error:
        evaluate(evaluator(engine, anchor, prompts=Changed(kind, how)), store, 1)
    assert "of iteration 0" in str(error.value) and "restore them" in str(error.value)
    assert kind == "verifiable" or anchor.num_comparisons == 0


def test_an_evaluation_does_not_resume_with_responses_to_other_prompts(store):
    run(store, up_to=0)
    killed = Engine(fail_when=lambda engine: engine.swaps == ["m1", "m0"])
    with pytest.raises(EngineError):
        evaluate(evaluator(killed), store, 1)
    with pytest.raises(StoreError, match="of iteration 1"):
        evaluate(evaluator(Engine(), prompts=Changed("validation", "other")), store, 1)


def test_a_prompt_that_fills_the_context_is_named(store):
    class Long(Prompts):
        def validation_prompts(self):
            return [Prompt("too long", (Message("user", "x" * 59 + " 1"),))]

    with pytest.raises(RecipeError, match="'too long' has 61 tokens"):
        evaluate(evaluator(Engine(), prompts=Long()), store, 0)


def test_little_remaining_context_shortens_the_response(store):
    class Tight(Prompts):
        def validation_prompts(self):
            return [Prompt(f"p{i}", (Message("user", "x" * 50 + f" {i}"),)) for i in range(2)]

    found = evaluate(evaluator(Engine(), prompts=Tight()), store, 0)
    assert found.metrics["truncation_rate"].mean == 1.0
    assert found.metrics["response_tokens"].mean == 60 - 52
    assert all(math.isfinite(m.high) for m in found.metrics.values() if isinstance(m, Interval))


def test_greedy_responses_are_measured_beside_sampled_ones(store):
    initial, _, second = run(store, temperature=1.0)  # the engine's sampled responses never pass
    assert initial.metrics["pass_rate"].mean == second.metrics["pass_rate"].mean == 0.0
    assert initial.metrics["greedy_pass_rate"].mean == pytest.approx(4 / 12)
    assert second.metrics["greedy_pass_rate"].mean == 1.0
    assert second.metrics["greedy_pass_rate_vs_previous"].mean == pytest.approx(4 / 12)
    assert second.metrics["greedy_pass_rate_vs_initial"].mean == pytest.approx(8 / 12)


def test_greedy_responses_are_not_sampled_twice(store):
    initial, *_ = run(store)
    assert initial.metrics["pass_rate"].mean == pytest.approx(4 / 12)
    assert not [name for name in initial.metrics if name.startswith("greedy")]
    assert not store.has(0, GREEDY_RESPONSES)


class WithChecks(Prompts):
    """Every second validation prompt has checks, and these are the verifiable prompts."""

    def validation_prompts(self):
        return [replace(p, checks=CHECKS if i % 2 else ()) for i, p in enumerate(super().validation_prompts())]

    def verifiable_prompts(self):
        return [prompt for prompt in self.validation_prompts() if prompt.checks]


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_validation_prompts_with_checks_are_measured_on_the_responses_that_are_compared(store, temperature):
    initial, first, second = run(store, prompts=WithChecks(), temperature=temperature)
    found = [each.metrics["pass_rate"] for each in (initial, first, second)]
    assert [interval.num_units for interval in found] == [6, 6, 6]
    assert [interval.mean for interval in found] == pytest.approx([2 / 6, 4 / 6, 1.0])
    assert second.metrics["pass_rate_vs_previous"].mean == pytest.approx(2 / 6)
    assert not store.has(2, VERIFIABLE_RESPONSES)
    by_checks = [row for row in outcomes_of(store, 2) if row.by == "checks" and row.against == 1]
    assert sorted(row.prompt_id for row in by_checks) == sorted(f"p{i}" for i in range(1, 12, 2))
    assert [row.outcome for row in by_checks].count(1.0) == 2
