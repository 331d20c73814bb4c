"""The self-consistency judge: shares of votes by hand, who votes with whom, and responses without a vote."""

import pytest

from selfreward import recipe
from selfreward.judging.self_consistency import SelfConsistencyJudge
from selfreward.records import Message, Prompt, Response

PROMPTS = [Prompt("p", (Message("user", "2+2?"),)), Prompt("q", (Message("user", "3+3?"),))]


def response(name, text, by="m1"):
    return Response(name, name[0], (7,), (1,), None, text, "stop", 0, by)


def judged(responses, **settings):
    judge = SelfConsistencyJudge(recipe.SelfConsistencySection(kind="self_consistency", **settings))
    return judge.judge(PROMPTS, responses, models={}, iteration=1)


@pytest.mark.parametrize("answer", ["numeric", "math"])
def test_the_score_is_the_share_of_responses_with_the_same_final_answer(answer):
    texts = ["It is 4.", "2 and 2 are 4", "I say 5, no: 4.0", "3", "no idea"]
    found = judged([response(f"p{i}", text) for i, text in enumerate(texts)], answer=answer)
    assert [(j.score, j.unscored) for j in found] == [(0.6, None)] * 3 + [(0.2, None), (None, "no_answer")]
    assert found[0].text == "answer 1: 3 of 5 responses" and found[3].text == "answer 2: 1 of 5 responses"


def test_formulas_vote_together_when_they_are_equal():
    texts = [r"\boxed{\frac{1}{2}}", "so the answer is $0.5$", r"\boxed{\frac{2}{4}}", r"\boxed{\frac{1}{3}}"]
    assert [j.score for j in judged([response(f"p{i}", t) for i, t in enumerate(texts)])] == [0.75] * 3 + [0.25]


def test_an_answer_after_a_marker_and_exact_answers():
    texts = ["The answer is: Rome\nbecause", "the ANSWER IS: rome.", "The answer is: Oslo", "Rome"]
    found = judged([response(f"p{i}", t) for i, t in enumerate(texts)], answer="exact", marker="The answer is:")
    assert [(j.score, j.unscored) for j in found] == [(0.5, None)] * 2 + [(0.25, None), (None, "no_answer")]
    whole = judged([response(f"p{i}", t) for i, t in enumerate(["Rome", "rome.", "Oslo"])], answer="exact")
    assert [j.score for j in whole] == pytest.approx([2 / 3, 2 / 3, 1 / 3])


def test_only_responses_of_one_checkpoint_to_one_prompt_vote_together_and_the_order_stays():
    mine = [response(f"p{i}", "4") for i in range(3)]
    others = [response(f"p{i}", text, by="m0") for i, text in enumerate(["4", "4", "7"], start=3)]
    elsewhere = [response(f"q{i}", text) for i, text in enumerate(["4", "6", "6", "6"])]
    mixed = [elsewhere[0], mine[0], others[2], elsewhere[1], mine[1], others[0], *elsewhere[2:], others[1], mine[2]]
    found = {j.response_id: j.score for j in judged(mixed, answer="numeric")}
    assert [j.response_id for j in judged(mixed, answer="numeric")] == [r.id for r in mixed]
    assert found == pytest.approx(
        {
            "p0": 1,
            "p1": 1,
            "p2": 1,
            "p3": 2 / 3,
            "p4": 2 / 3,
            "p5": 1 / 3,
            "q0": 0.25,
            "q1": 0.75,
            "q2": 0.75,
            "q3": 0.75,
        }
    )


def test_two_responses_are_no_vote_and_an_empty_one_is_empty():
    assert {j.unscored for j in judged([response("p0", "4"), response("p1", "5")])} == {"too_few_responses"}
    found = judged([response("p0", "4"), response("p1", " \n"), response("p2", "4")], answer="numeric")
    assert [(j.score, j.unscored) for j in found] == [(2 / 3, None), (None, "empty_response"), (2 / 3, None)]
