"""The intrinsic judge: log-ratios by hand, engine calls, and responses that cannot be scored."""

import math
from pathlib import Path

import pytest
from fakes.engine import FakeEngine

from selfreward import recipe
from selfreward.judging.intrinsic import IntrinsicJudge
from selfreward.records import Checkpoint, Message, Prompt, Response

PROMPT = Prompt("p", (Message("user", "Write."),))
POLICY, INITIAL = Checkpoint("m1", Path("m1"), 1), Checkpoint("m0", Path("m0"), 0)
MODELS = {"policy": POLICY, "initial": INITIAL}


class ScoringEngine(FakeEngine):
    """log P(token) is -token / 10 under m1 and -token / 5 under m0, and -inf under either for token 99."""

    def __init__(self, *, context_tokens=100):
        super().__init__(lambda request, draw: None, context_tokens=context_tokens)
        self.scored = []

    def score(self, requests):
        loaded = self.loaded[-1].id
        self.scored.append((loaded, list(requests)))
        share = {"m1": 10, "m0": 5}[loaded]
        return [tuple(-math.inf if t == 99 else -t / share for t in request.token_ids) for request in requests]


def response(number, *token_ids, text="a", prompt_tokens=3):
    return Response(f"p#{number}", "p", (7,) * prompt_tokens, token_ids, None, text, "stop", 0, "m1")


def judged(responses, engine, models=MODELS, **settings):
    judge = IntrinsicJudge(recipe.IntrinsicSection(kind="intrinsic", **settings), engine=engine)
    return judge.judge([PROMPT], responses, models=models, iteration=1)


def test_intrinsic_score_is_the_log_ratio_of_the_sampled_tokens():
    engine = ScoringEngine()
    one, two = judged([response(0, 10, 20), response(1, 5)], engine)
    # -(1 + 2) - -(2 + 4), and -0.5 - -1: the policy makes both more probable.
    assert (one.score, two.score) == pytest.approx((3.0, 0.5))
    assert one.text == "log-probability of 2 tokens: -3.0000 policy, -6.0000 initial"
    assert [(j.response_id, j.prompt_id, j.draw, j.part, j.checkpoint_id) for j in (one, two)] == [
        ("p#0", "p", 0, "", "m1"),
        ("p#1", "p", 0, "", "m1"),
    ]
    assert one.id != two.id
    turned = judged([response(0, 10, 20)], ScoringEngine(), by="initial", reference="policy")
    assert turned[0].score == pytest.approx(-3.0) and turned[0].checkpoint_id == "m0"


def test_intrinsic_per_token_divides_by_all_tokens():
    one, two = judged([response(0, 10, 20, 30), response(1, 20)], ScoringEngine(), per_token=True)
    assert (one.score, two.score) == pytest.approx((2.0, 2.0))


def test_intrinsic_loads_each_model_once_for_all_responses():
    engine = ScoringEngine()
    judged([response(number, 1, 2) for number in range(5)], engine)
    assert [checkpoint.id for checkpoint in engine.loaded] == ["m1", "m0"]
    assert [(loaded, len(requests)) for loaded, requests in engine.scored] == [("m1", 5), ("m0", 5)]
    (request, *_) = engine.scored[0][1]
    assert (request.prompt_token_ids, request.token_ids) == ((7, 7, 7), (1, 2))


def test_intrinsic_is_exactly_zero_without_the_engine_while_both_are_one_checkpoint():
    engine = ScoringEngine()
    models = {"policy": INITIAL, "initial": Checkpoint("m0", Path("elsewhere"), 0)}
    one, empty = judged([response(0, 10), response(1, 2, text=" \n")], engine, models)
    assert (one.score, one.unscored) == (0.0, None) and "same checkpoint" in one.text
    assert (empty.score, empty.unscored) == (None, "empty_response")
    assert not engine.loaded and not engine.scored


def test_intrinsic_leaves_responses_without_a_ratio_unscored_and_keeps_the_order():
    engine = ScoringEngine(context_tokens=10)
    responses = [
        response(0, 2, text="\n "),
        response(1, 10, prompt_tokens=9),
        response(2, 10, prompt_tokens=10),
        response(3, 10, 99),
        response(4, 20),
    ]
    judgments = judged(responses, engine)
    assert [j.unscored for j in judgments] == ["empty_response", None, "too_long", "not_finite", None]
    assert [j.score for j in judgments] == [None, pytest.approx(1.0), None, None, pytest.approx(2.0)]
    assert [j.response_id for j in judgments] == [r.id for r in responses]
    assert judged([responses[0]], unused := ScoringEngine())[0].unscored == "empty_response" and not unused.loaded


def test_intrinsic_names_both_models():
    section = recipe.IntrinsicSection(kind="intrinsic", by="policy", reference="base")
    judge = IntrinsicJudge(section, engine=ScoringEngine())
    assert judge.by == {"policy", "base"} and judge.scale is None
