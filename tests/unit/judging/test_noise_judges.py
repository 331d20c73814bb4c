"""Judges that guess, from the model's words to the pairs: reliability must say so where pairs and margins cannot.

The real judges, readers, selector and statistics; only what the model says is made up, at random.
"""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from cases.judging import FakeChat, chosen, judged

from selfreward import pairing, recipe
from selfreward.parts import PairingInputs
from selfreward.records import Judgment, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply
from selfreward.statistics.judge_metrics import measure_judge

NUM_PROMPTS, NUM_RESPONSES = 150, 4
PROMPTS = [
    Prompt(f"p{n}", (Message("user", f"Name sea number {n}."),), ({"kind": "regex", "pattern": f"Sea {n}"},))
    for n in range(NUM_PROMPTS)
]
RESPONSES = [
    Response(f"p{n}/{i}", f"p{n}", (1,), (5, i, 2), None, f"Sea {n}, variant {i}.", "stop", 0, "m")
    for n in range(NUM_PROMPTS)
    for i in range(NUM_RESPONSES)
]


def guesses(request: ChatRequest, draw: int) -> Reply | str:
    """Scores, or probabilities of the choices, that depend on question and draw and on nothing that they mean."""
    chance = random.Random(f"{request.messages[0].content} {request.seed + draw}")
    if request.choices:
        return chosen(request, {choice: chance.random() for choice in request.choices})
    return f"It is what it is.\nScore: {chance.choice([2, 3, 3, 4, 4, 4, 5, 5])}"


RUBRIC = {"kind": "rubric", "criteria": [{"name": "a", "description": "b"}, {"name": "c", "description": "d"}]}
KINDS: Mapping[str, dict[str, Any]] = {
    "additive": {"num_draws": 3},
    "expected_score": {"num_draws": 2},
    "pairwise": {},
    "rubric": {"num_draws": 3, "criteria": RUBRIC["criteria"]},
    "ensemble": {"members": [{"kind": "additive", "num_draws": 2}, {"kind": "expected_score", "num_draws": 2}]},
}


@pytest.fixture(scope="module", params=KINDS)
def noise(request: pytest.FixtureRequest) -> list[Judgment]:
    return judged(FakeChat(guesses), request.param, RESPONSES, *PROMPTS, **KINDS[request.param])


def test_a_judge_that_guesses_has_no_reliability_and_nearly_all_its_prompts_give_pairs(noise: list[Judgment]) -> None:
    lengths = {response.id: len(response.token_ids) for response in RESPONSES}
    metrics, _ = measure_judge(noise, response_lengths=lengths, scale=None, seed=0)
    r = metrics["judge_reliability"]
    assert r.low == 0 and r.mean < 0.2 and r.high < 0.4  # type: ignore[union-attr]
    selector = pairing.build(recipe.BestVsWorst(kind="best_vs_worst"))
    assert len(selector.select(PairingInputs(PROMPTS, RESPONSES, noise)).pairs) > 0.9 * NUM_PROMPTS


def test_min_reliability_drops_all_that_a_guessing_judge_said(noise: list[Judgment]) -> None:
    selector = pairing.build(recipe.BestVsWorst(kind="best_vs_worst", min_reliability=0.4))
    selection = selector.select(PairingInputs(PROMPTS, RESPONSES, noise))
    assert not selection.pairs and {dropped.reason for dropped in selection.dropped} <= {"low_reliability", "tie"}


@pytest.mark.parametrize(
    "members",
    [
        [{"kind": "additive", "num_draws": 3}, {**RUBRIC, "num_draws": 1}],
        [{"kind": "additive", "num_draws": 3}, {"kind": "pairwise"}],
        [{"kind": "expected_score", "num_draws": 1}, {"kind": "pairwise"}],
    ],
)
def test_one_guess_repeated_does_not_pass_for_one_that_comes_again(members: list[dict[str, Any]]) -> None:
    """A member that draws once beside one that draws more: nothing is known of how it repeats itself."""
    judgments = judged(FakeChat(guesses), "ensemble", RESPONSES[:40], *PROMPTS[:10], members=members)
    _, not_measured = measure_judge(judgments, response_lengths={}, scale=None, seed=0)
    assert "judge_reliability" in not_measured
    assert len([j for j in judgments if not j.part]) == 40


def test_a_verifier_takes_part_in_every_draw() -> None:
    members = [{"kind": "additive", "num_draws": 3}, {"kind": "verifier"}]
    judgments = judged(FakeChat(guesses), "ensemble", RESPONSES[:40], *PROMPTS[:10], members=members)
    assert len([j for j in judgments if not j.part]) == 120
