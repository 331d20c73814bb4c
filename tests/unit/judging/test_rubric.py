"""The rubric: its questions, its mean over criteria by hand, unscored draws, and the stored parts."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from cases.judging import PROMPT, FakeChat, build, judged, question, response
from hypothesis import strategies as st

from selfreward.records import Judgment
from selfreward.requests import ChatRequest, Reply
from selfreward.statistics.scores import mean_scores
from selfreward.templates import Template

TRUTH = {"name": "Truth", "description": "What it says is true.", "weight": 3.0}
BREVITY = {"name": "Brevity", "description": "It is short. {{response}}"}
CRITERIA = {"criteria": [TRUTH, BREVITY]}
BLACK, RED, WHITE = (response(number, f"The {name} Sea.") for number, name in enumerate(["Black", "Red", "White"]))


def criterion_of(request: ChatRequest) -> str:
    return question(request).split("\n\n")[1]


def scoring(scores: Mapping[tuple[str, str], str]) -> FakeChat:
    """By criterion and a word of the response: digits, one a draw; "-" is no verdict."""

    def say(request: ChatRequest, draw: int) -> str:
        (digits,) = (
            digits
            for (name, word), digits in scores.items()
            if criterion_of(request).startswith(name) and word in question(request)
        )
        return f"{word_of(request)} in draw {draw}: fine.\n" + ("" if digits[draw] == "-" else f"Score: {digits[draw]}")

    return FakeChat(say)


def word_of(request: ChatRequest) -> str:
    return criterion_of(request).partition(":")[0]


def own(judgments: list[Judgment]) -> list[Judgment]:
    return [j for j in judgments if not j.part]


def test_each_criterion_is_a_question_of_its_own_in_one_call() -> None:
    chat = FakeChat(lambda request, draw: "Score: 3")
    judged(chat, "rubric", [BLACK, RED], **CRITERIA, num_draws=2, temperature=0.6, top_p=0.8, max_tokens=55)
    (call,) = chat.calls
    assert [criterion_of(request) for request in call] == [
        "Truth: What it says is true.",
        "Brevity: It is short. {{response}}",  # the recipe's text, verbatim
    ] * 2
    assert {(r.n, r.temperature, r.top_p, r.max_tokens) for r in call} == {(2, 0.6, 0.8, 55)}
    assert len({r.seed for r in call}) == 4
    assert ["Black" in question(r) for r in call] == [True, True, False, False]


def test_the_score_is_the_weighted_mean_over_criteria_draw_by_draw() -> None:
    chat = scoring({("Truth", "Black"): "54", ("Brevity", "Black"): "12"})
    given = judged(chat, "rubric", [BLACK], **CRITERIA, num_draws=2)
    assert [(j.draw, j.score) for j in own(given)] == [(0, (3 * 5 + 1) / 4), (1, (3 * 4 + 2) / 4)]
    assert [j.text for j in own(given)] == ["Truth: 5\nBrevity: 1", "Truth: 4\nBrevity: 2"]
    for judgment in own(given):
        assert (judgment.judge, judgment.response_id, judgment.prompt_id, judgment.unscored) == (
            "rubric", "p/0", "p", None
        )  # fmt: skip
        # It is combined, not sampled.
        assert judgment.token_ids == judgment.prompt_token_ids == () and judgment.token_logprobs is None
        assert (judgment.seed, judgment.finish_reason, judgment.checkpoint_id) == (0, None, "m1")
    assert mean_scores(given) == {"p/0": pytest.approx((4.0 + 3.5) / 2)}  # criteria count once, within it


def test_the_parts_are_kept_with_their_critiques_before_the_whole() -> None:
    say = scoring({(c, r): "45" for c in ("Truth", "Brevity") for r in ("Black", "Red")}).say
    chat = FakeChat(lambda request, draw: Reply(str(say(request, draw)), "stop", (), (1,), (8, draw), (-0.1, -0.2)))
    given = judged(chat, "rubric", [BLACK, RED], **CRITERIA, num_draws=2)
    assert [(j.response_id, j.part, j.draw) for j in given] == [
        (r, part, draw) for r in ("p/0", "p/1") for part in ("Truth", "Brevity", "") for draw in range(2)
    ]
    assert [j.id for j in given[:6]] == [
        "p/0/rubric/Truth/0",
        "p/0/rubric/Truth/1",
        "p/0/rubric/Brevity/0",
        "p/0/rubric/Brevity/1",
        "p/0/rubric/0",
        "p/0/rubric/1",
    ]
    part = given[1]
    assert (part.score, part.text, part.token_ids) == (5.0, "Truth in draw 1: fine.\nScore: 5", (8, 1))
    truth = chat.calls[0][0]
    assert (part.seed, part.prompt_token_ids) == (truth.seed + 1, (1,))
    assert {j.template_sha256 for j in given} == {Template.load("rubric").sha256}


def test_a_draw_without_one_criterion_is_unscored_with_that_reason() -> None:
    chat = scoring({("Truth", "Black"): "54", ("Brevity", "Black"): "1-"})
    given = judged(chat, "rubric", [BLACK], **CRITERIA, num_draws=2)
    assert [(j.score, j.unscored) for j in own(given)] == [(4.0, None), (None, "no_verdict")]
    assert own(given)[1].text == "Truth: 4\nBrevity: no_verdict"
    assert [(j.part, j.score) for j in given if j.part and j.draw == 1] == [("Truth", 4.0), ("Brevity", None)]


def test_a_response_without_text_is_judged_under_no_criterion() -> None:
    chat = scoring({("Truth", "Black"): "5", ("Brevity", "Black"): "1"})
    given = judged(chat, "rubric", [replace(RED, text=" "), BLACK], **CRITERIA, num_draws=1)
    assert [(j.part, j.unscored) for j in given if j.response_id == RED.id] == [
        ("Truth", "empty_response"),
        ("Brevity", "empty_response"),
        ("", "empty_response"),
    ]
    assert [j.score for j in own(given)] == [None, 4.0] and len(chat.calls[0]) == 2


SPREAD = {
    ("Truth", "Black"): "02", ("Truth", "Red"): "43", ("Truth", "White"): "5-",
    ("Brevity", "Black"): "43", ("Brevity", "Red"): "44", ("Brevity", "White"): "34",
}  # fmt: skip


def test_z_scores_are_taken_per_criterion_over_all_that_is_judged_together() -> None:
    given = judged(scoring(SPREAD), "rubric", [BLACK, RED, WHITE], **CRITERIA, num_draws=2, normalise=True)

    def z(value: float, values: list[int]) -> float:
        return (value - statistics.fmean(values)) / statistics.pstdev(values)

    truth, brevity = [0, 2, 4, 3, 5], [4, 3, 4, 4, 3, 4]
    expected = [
        (3 * z(t, truth) + z(b, brevity)) / 4 for t, b in [(0, 4), (2, 3), (4, 4), (3, 4), (5, 3)]
    ]  # fmt: skip
    assert [j.score for j in own(given)] == [*map(pytest.approx, expected), None]
    assert own(given)[5].unscored == "no_verdict"
    # The parts store the raw score.
    assert [j.score for j in given if j.part == "Truth"] == [0, 2, 4, 3, 5, None]


def test_a_criterion_that_spreads_little_counts_as_much_as_the_others() -> None:
    chat = scoring({("A", "Black"): "4", ("A", "Red"): "5", ("B", "Black"): "5", ("B", "Red"): "0"})
    criteria = [{"name": "A", "description": "x"}, {"name": "B", "description": "y"}]
    plain = judged(chat, "rubric", [BLACK, RED], criteria=criteria, num_draws=1)
    even = judged(chat, "rubric", [BLACK, RED], criteria=criteria, num_draws=1, normalise=True)
    assert [j.score for j in own(plain)] == [4.5, 2.5]
    assert [j.score for j in own(even)] == [0.0, 0.0]


def test_equal_scores_or_a_single_one_have_z_score_zero() -> None:
    chat = scoring({(c, r): "4" for c in ("Truth", "Brevity") for r in ("Black", "Red")})
    for responses in ([BLACK], [BLACK, RED]):
        given = judged(chat, "rubric", responses, **CRITERIA, num_draws=1, normalise=True)
        assert [j.score for j in own(given)] == [0.0] * len(responses)


@pytest.mark.parametrize(("normalise", "scale"), [(False, (0.0, 5.0)), (True, None)])
def test_the_scale_is_that_of_the_scores(normalise: bool, scale: Any) -> None:
    assert build(FakeChat(lambda request, draw: ""), "rubric", **CRITERIA, normalise=normalise).scale == scale


@hypothesis.given(
    names=st.lists(
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,8}", fullmatch=True), min_size=1, max_size=4, unique=True
    ),
    weights=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    num_responses=st.integers(0, 3),
    num_draws=st.integers(1, 3),
    digits=st.lists(st.integers(-1, 5), min_size=36, max_size=36),
)
def test_for_any_criteria_ids_differ_and_scores_lie_on_the_scale(
    names: list[str], weights: list[float], num_responses: int, num_draws: int, digits: list[int]
) -> None:
    told = iter(digits)
    chat = FakeChat(lambda request, draw: "" if (digit := next(told)) < 0 else f"Score: {digit}")
    criteria = [{"name": n, "description": "x", "weight": w} for n, w in zip(names, weights, strict=False)]
    responses = [response(number, f"Sea {number}.") for number in range(num_responses)]
    given = judged(chat, "rubric", responses, PROMPT, criteria=criteria, num_draws=num_draws)
    assert len({j.id for j in given}) == len(given) == num_responses * num_draws * (len(names) + 1)
    for whole in own(given):
        parts = [j for j in given if j.part and (j.response_id, j.draw) == (whole.response_id, whole.draw)]
        assert [j.part for j in parts] == names
        lost = [j.unscored for j in parts if j.score is None]
        assert whole.unscored == (lost[0] if lost else None)
        if whole.score is not None:
            scores = [j.score or 0.0 for j in parts]
            assert min(scores) - 1e-9 <= whole.score <= max(scores) + 1e-9 and math.isfinite(whole.score)
