"""What is said of an iteration's judge and samples: gold pairs, variety, and that every number is explained."""

from dataclasses import replace

import pytest
from cases.evaluation import (
    MODELS,
    Engine,
    Prompts,
    TableJudge,
    evaluate,
    evaluator,
    judgment,
    likes_brevity,
    outcomes_of,
    roles,
    run,
)

from selfreward.errors import EngineError
from selfreward.evaluation.tables import GOLD_OUTCOMES
from selfreward.parts import PairingInputs
from selfreward.records import GoldPair, Message, Prompt, PromptOutcome, Response
from selfreward.reporting.glossary import numbers
from selfreward.store import Store
from selfreward.tables import JUDGMENTS, PROMPTS, RESPONSES


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "run", name="test") as made:
        yield made


def gold(*texts):
    return [GoldPair(Prompt(f"gold-{i}", (Message("user", "?"),)), *pair) for i, pair in enumerate(texts)]


class WithGold(Prompts):
    gold = gold(("short", "much longer"), ("a very long one", "brief"), ("same", "size"), ("fine", "unreadable"))


def unreadable(text):
    return None if text == "unreadable" else likes_brevity(text)


def evaluate_judge(store, judge, shards=(), prompts=None, iteration=1, **options):
    for table, name in ((PROMPTS, "prompts"), (RESPONSES, "responses"), (JUDGMENTS, "judgments")):
        parts = [getattr(part, name) for part in shards] or [[]]
        store.stage(iteration, table, len(parts), lambda shard, parts=parts: parts[shard])
    made = evaluator(Engine(), judge=judge, prompts=prompts or Prompts(), num_judge_prompts=0, **options)
    return made.evaluate_judge(store, iteration, roles(iteration))


def test_gold_pairs_in_the_right_order_in_the_wrong_one_equal_and_unscored(store):
    found = evaluate_judge(store, TableJudge(unreadable), prompts=WithGold())
    assert found.metrics["judge_gold_accuracy"].mean == pytest.approx((1 + 0 + 0.5) / 3)
    assert found.metrics["judge_gold_accuracy"].num_units == 3
    assert found.metrics["judge_gold_unscored_rate"].mean == pytest.approx(1 / 4)
    assert outcomes_of(store, 1, GOLD_OUTCOMES) == [
        PromptOutcome(f"gold-{i}", "gold", "self", -1, outcome) for i, outcome in enumerate((1.0, 0.0, 0.5, None))
    ]


def test_a_judge_that_scores_no_gold_pair_has_no_accuracy(store):
    found = evaluate_judge(store, TableJudge(lambda text: None), prompts=WithGold())
    assert "none of 4 gold pairs" in found.not_measured["judge_gold_accuracy"]
    assert found.metrics["judge_gold_unscored_rate"].mean == 1.0


def test_without_gold_pairs_nothing_is_asked(store):
    judge = TableJudge(likes_brevity)
    found = evaluate_judge(store, judge)
    assert "no gold pairs" in found.not_measured["judge_gold_accuracy"] and judge.calls == []
    assert not store.has(1, GOLD_OUTCOMES)


def test_a_kill_among_gold_pairs_loses_one_shard(store):
    killed = TableJudge(unreadable, fail_at=2)
    with pytest.raises(EngineError):
        evaluate_judge(store, killed, prompts=WithGold(), shard_prompts=3)
    after = TableJudge(unreadable)
    evaluate_judge(store, after, prompts=WithGold(), shard_prompts=3)
    assert [texts for texts, _ in after.calls] == [["fine", "unreadable"]] == [killed.calls[1][0]]
    assert len(outcomes_of(store, 1, GOLD_OUTCOMES)) == 4


def shard(texts_of_prompts, likes=likes_brevity, truncated=()):
    """One shard of what was sampled and judged; tokens are characters."""
    prompts = [Prompt(f"q{i}", (Message("user", "?"),)) for i in range(len(texts_of_prompts))]
    responses = [
        Response(
            f"q{i}/{n}", f"q{i}", (1,), tuple(text.encode()) + (() if text in truncated else (0,)), None, text,
            "length" if text in truncated else "stop", 0, "m0",
        )
        for i, texts in enumerate(texts_of_prompts)
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return PairingInputs(prompts, responses, [judgment(r, likes(r.text)) for r in responses])


def test_what_was_sampled_is_measured_over_all_shards(store):
    stuck = "abab" * 10
    shards = [
        shard([["one and the same", "one and the same"], ["abcdefgh", "ijklmnop"]]),
        replace(shard([["first one", stuck]], truncated=(stuck,))),
    ]
    found = evaluate_judge(store, TableJudge(likes_brevity), shards).metrics
    assert found["sample_repetition_rate"].mean == pytest.approx((0 + 0 + 1 / 2) / 3)
    assert found["sample_end_of_sequence_rate"].mean == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert found["sample_vendi"].mean == pytest.approx((1 + 2 + 2) / 3, abs=0.01)
    assert 1 / 3 < found["sample_self_bleu"].mean < 0.4
    # Equal scores on the first two prompts, and different ones on the third.
    assert found["zero_variance_prompt_rate"].mean == pytest.approx(2 / 3)


def test_spread_needs_two_scores(store):
    half = [shard([["a", "bb"]], likes=lambda text: None if text == "a" else 1.0), shard([["alone"]])]
    found = evaluate_judge(store, TableJudge(likes_brevity), half)
    assert found.not_measured["zero_variance_prompt_rate"] == "no prompt has two scored responses"
    assert found.metrics["sample_self_bleu"].num_units == 1


def test_similarity_is_measured_on_a_sample_that_does_not_depend_on_shards(store, tmp_path):
    texts = [[f"text {i}", f"text {i * i}"] for i in range(300)]
    whole = evaluate_judge(store, TableJudge(likes_brevity), [shard(texts)])
    made = shard(texts)
    parts = [
        PairingInputs(
            made.prompts[i : i + 50], made.responses[2 * i : 2 * i + 100], made.judgments[2 * i : 2 * i + 100]
        )
        for i in range(0, 300, 50)
    ]
    with Store(tmp_path / "other", name="test") as other:
        assert evaluate_judge(other, TableJudge(likes_brevity), parts) == whole
    assert whole.metrics["sample_vendi"].num_units == 256
    assert whole.metrics["sample_repetition_rate"].num_units == 300


class WithTestSetAndGold(WithGold):
    test_set = 10


def test_every_number_is_explained(store):
    judge = TableJudge(likes_brevity)
    run(store, up_to=2, judge=judge)
    found = evaluate(evaluator(Engine(), judge=judge), store, 3, best=MODELS[1])
    test_set = evaluator(Engine(), prompts=WithTestSetAndGold()).run_test(store, 3, roles(3, MODELS[1]))
    of_judge = evaluate_judge(store, judge, [shard([["a", "b"]])], prompts=WithTestSetAndGold())
    names = {name for e in (found, test_set, of_judge) for name in e.metrics.keys() | e.not_measured.keys()} - {
        "anchor"
    }
    assert len(names) > 50
    assert names - numbers().keys() == set()
