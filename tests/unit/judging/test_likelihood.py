"""The likelihood judge: sampled log-probabilities are reused, others are computed, and some responses have none."""

import math
from pathlib import Path

import pytest
from fakes.engine import FakeEngine

from selfreward import recipe
from selfreward.judging.likelihood import LikelihoodJudge
from selfreward.records import Checkpoint, Message, Prompt, Response
from selfreward.workload import Workload

PROMPT = Prompt("p", (Message("user", "Write."),))
POLICY, INITIAL = Checkpoint("m1", Path("m1"), 1), Checkpoint("m0", Path("m0"), 0)
MODELS = {"policy": POLICY, "initial": INITIAL}


class ScoringEngine(FakeEngine):
    """log P(token) is -token under every model, and -inf for token 99."""

    def __init__(self, *, context_tokens=100):
        super().__init__(lambda request, draw: None, context_tokens=context_tokens)
        self.scored = []

    def score(self, requests):
        self.scored += requests
        return [tuple(-math.inf if t == 99 else -float(t) for t in request.token_ids) for request in requests]


def response(number, *token_ids, logprobs=None, text="a", by="m1", prompt_tokens=3):
    return Response(f"p#{number}", "p", (7,) * prompt_tokens, token_ids, logprobs, text, "stop", 0, by)


def judged(responses, engine, **settings):
    judge = LikelihoodJudge(recipe.LikelihoodSection(kind="likelihood", **settings), engine=engine)
    return judge.judge([PROMPT], responses, models=MODELS, iteration=1)


def test_own_responses_are_scored_by_their_sampled_log_probabilities_without_the_engine():
    engine = ScoringEngine()
    one, two = judged([response(0, 1, 2, logprobs=(-0.25, -0.5)), response(1, 3, logprobs=(-4.0,))], engine)
    assert (one.score, two.score) == (-0.75, -4.0)
    assert one.text == "log-probability of 2 tokens: -0.7500" and one.checkpoint_id == "m1"
    assert not engine.loaded and not engine.scored
    per_token, _ = judged(
        [response(0, 1, 2, logprobs=(-0.25, -0.5)), response(1, 3, logprobs=(-4.0,))], engine, per_token=True
    )
    assert per_token.score == -0.375 and per_token.text == one.text


def test_responses_of_others_take_one_load_and_one_call_and_the_order_stays():
    engine = ScoringEngine()
    responses = [
        response(0, 5, logprobs=(-0.5,), by="m0"),
        response(1, 1, 2, logprobs=(-0.25, -0.5)),
        response(2, 3, 4),
    ]
    assert [j.score for j in judged(responses, engine)] == [-5.0, -0.75, -7.0]
    assert [c.id for c in engine.loaded] == ["m1"] and len(engine.scored) == 2
    other = ScoringEngine()
    assert [j.score for j in judged(responses, other, by="initial")] == [-0.5, -3.0, -7.0]
    assert [c.id for c in other.loaded] == ["m0"]


def test_responses_without_a_log_probability_are_unscored():
    engine = ScoringEngine(context_tokens=10)
    responses = [
        response(0, 2, logprobs=(-1.0,), text="\n "),
        response(1, 10, prompt_tokens=10),
        response(2, 10, 99),
        response(3, 2, logprobs=(-math.inf,)),
        response(4),
    ]
    judgments = judged(responses, engine)
    reasons = ["empty_response", "too_long", "not_finite", "not_finite", "empty_response"]
    assert [(j.score, j.unscored) for j in judgments] == [(None, reason) for reason in reasons]


@pytest.mark.parametrize(("by", "num_own", "times"), [("policy", 4, 2), ("policy", 0, 6), ("initial", 4, 6)])
def test_only_responses_of_others_are_counted_in_the_plan(by, num_own, times):
    class Lengths:
        def prompts(self, prompts):
            return (5,) * len(prompts)

    judge = LikelihoodJudge(recipe.LikelihoodSection(kind="likelihood", by=by), engine=ScoringEngine())
    (requests,) = judge.max_requests(Workload([PROMPT], 6, 20, 1, num_own=num_own), Lengths())
    assert (requests.by, requests.times, requests.rest, requests.first_P) == (by, times, 20, (5,))
    assert judge.by == {by} and judge.scale is None
    if by == "policy":
        assert judge.max_requests(Workload([PROMPT], 4, 20, 1, num_own=4), Lengths()) == []
