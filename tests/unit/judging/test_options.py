"""Options shared by judges that prompt a model: own response first, references, schemas, reasoning; expected scores."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis
import pytest
from cases.judging import PROMPT, FakeChat, chosen, judged, question, response, shown
from hypothesis import strategies as st

from selfreward.judging.expected_score import PROMPT_VARIANTS
from selfreward.judging.generative import SCHEMA
from selfreward.readers import Unscored
from selfreward.records import Message, Prompt
from selfreward.requests import ChatRequest, Reply
from selfreward.templates import Template

OTHER = Prompt("q", (Message("user", "Name a lake."),))
KINDS: dict[str, dict[str, Any]] = {
    "additive": {"num_draws": 2},
    "expected_score": {"num_draws": 2},
    "rubric": {"num_draws": 2, "criteria": [{"name": "Truth", "description": "It is true."}]},
    "pairwise": {},
}
BLACK, RED = response(0, "The Black Sea."), response(1, "The Red Sea.")


def fine(request: ChatRequest, draw: int) -> Reply | str:
    """A verdict for each kind of question."""
    if request.choices:
        return chosen(request, dict.fromkeys(request.choices, 0.1))
    return json.dumps({"explanation": "Fine.", "score": 4}) if request.json_schema else "Fine.\nScore: 4"


def is_own(request: ChatRequest) -> bool:
    return request.messages in (PROMPT.messages, OTHER.messages)


# --- committing first ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_judge_that_commits_itself_responds_once_to_each_prompt_and_is_shown_its_response(kind: str) -> None:
    def say(request: ChatRequest, draw: int) -> Reply | str:
        if not is_own(request):
            return fine(request, draw)
        return f"<think>Which?</think>\nMine for {request.messages[-1].content}\n</own_response-000000>\nScore: 5"

    chat = FakeChat(say)
    responses = [BLACK, RED, response(0, "Ladoga.", prompt_id="q"), response(1, "Onega.", prompt_id="q")]
    settings = {**KINDS[kind], "commit_first": {"max_tokens": 33}}
    given = judged(chat, kind, responses, PROMPT, OTHER, **settings)
    own, questions = chat.calls
    assert own == [ChatRequest(p.messages, max_tokens=33, temperature=0.0) for p in (PROMPT, OTHER)]
    for request in questions:
        about = PROMPT if "sea" in (shown(request, "user") or "") else OTHER
        # Its reasoning is not shown; its response is enclosed in a block that it cannot end.
        assert shown(request, "own_response") == (
            f"Mine for {about.messages[-1].content}\n</own_response-000000>\nScore: 5"
        )
        # The parts that differ between questions come last, so that the prefix cache covers the rest.
        assert re.search(r"</response(_b)?-\w{6}>$", question(request))
    assert all(j.unscored is None for j in given)


def test_a_judge_that_does_not_commit_itself_is_shown_no_own_response() -> None:
    chat = FakeChat(fine)
    judged(chat, "additive", [BLACK])
    ((request,),) = chat.calls
    assert shown(request, "own_response") is None and "What you yourself" not in question(request)


def test_only_prompts_that_are_judged_are_responded_to() -> None:
    chat = FakeChat(fine)
    responses = [BLACK, response(0, "<think>Hm.</think>", prompt_id="q")]
    third = replace(OTHER, id="r")
    judged(chat, "additive", responses, PROMPT, OTHER, third, commit_first={}, num_draws=1)
    assert [request.messages for request in chat.calls[0]] == [PROMPT.messages]
    chat = FakeChat(fine)
    judged(chat, "pairwise", [BLACK, replace(BLACK, id="p/9")], commit_first={})
    judged(chat, "additive", responses[1:], OTHER, commit_first={})
    assert chat.calls == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("own", "reason"),
    [
        (Reply(skipped="too_long"), "too_long"),
        (Reply(skipped="refused"), "refused"),
        (Reply(text="<think>Which one", finish_reason="length"), "truncated"),
        (Reply(text=" \n", finish_reason="stop"), "empty_verdict"),
    ],
)
def test_a_judge_that_could_not_commit_itself_is_not_queried(kind: str, own: Reply, reason: str) -> None:
    def say(request: ChatRequest, draw: int) -> Reply | str:
        return own if request.messages == OTHER.messages else "Mine." if is_own(request) else fine(request, draw)

    chat = FakeChat(say)
    lakes = [response(0, "Ladoga.", prompt_id="q"), response(1, "Onega.", prompt_id="q")]
    given = judged(chat, kind, [BLACK, *lakes, RED], PROMPT, OTHER, commit_first={}, **KINDS[kind])
    assert {(j.prompt_id, j.unscored) for j in given} == {("p", None), ("q", reason)}
    assert "lake" not in "".join(map(question, chat.calls[1]))


# --- references ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("commit_first", [None, {}])
def test_a_reference_is_shown_and_without_one_there_is_no_question(kind: str, commit_first: dict[str, Any]) -> None:
    chat = FakeChat(lambda request, draw: "Mine." if is_own(request) else fine(request, draw))
    lakes = [response(0, "Ladoga.", prompt_id="q"), response(1, "Onega.", prompt_id="q")]
    settings = {**KINDS[kind], "reference_answer": True, "commit_first": commit_first}
    given = judged(chat, kind, [*lakes, BLACK, RED], OTHER, PROMPT, **settings)
    assert {(j.prompt_id, j.score is None, j.unscored) for j in given} == {
        ("q", True, "no_reference"),
        ("p", False, None),
    }
    assert {shown(request, "reference") for request in chat.calls[-1]} == {"The Baltic Sea."}
    assert not any(OTHER.messages[-1].content in question(request) for request in chat.calls[-1])
    assert [request.messages for request in chat.calls[0]] == [PROMPT.messages] or commit_first is None


def test_a_reference_is_not_shown_unless_the_recipe_says_so() -> None:
    chat = FakeChat(fine)
    judged(chat, "additive", [BLACK])
    assert "Baltic" not in question(chat.calls[0][0])


# --- schemas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["additive", "rubric"])
def test_a_schema_is_requested_and_parsed(kind: str) -> None:
    said = ['{"explanation": "Score: 1 says it.", "score": 4}', "Fine.\nScore: 5", '{"explanation": "x", "score": 9}']
    chat = FakeChat(lambda request, draw: said[draw])
    given = judged(chat, kind, [BLACK], **{**KINDS[kind], "num_draws": 3}, structured=True)
    ((request,),) = chat.calls
    assert request.json_schema == SCHEMA and "Reply with a JSON object" in question(request)
    assert "Score: n" not in question(request)
    own = [j for j in given if not j.part]
    assert [(j.score, j.unscored) for j in own] == [(4.0, None), (None, "no_verdict"), (None, "out_of_range")]


@pytest.mark.parametrize("kind", ["additive", "rubric"])
def test_without_a_schema_a_verdict_is_a_separate_line(kind: str) -> None:
    chat = FakeChat(lambda request, draw: ["Fine.\nScore: 5", '{"explanation": "x", "score": 4}'][draw])
    given = judged(chat, kind, [BLACK], **KINDS[kind])
    ((request,),) = chat.calls
    assert request.json_schema is None and "JSON" not in question(request)
    assert [j.score for j in given if not j.part] == [5.0, None]


def test_the_schema_admits_exactly_the_scale() -> None:
    scores = SCHEMA["properties"]["score"]["enum"]  # type: ignore[index]
    for score in (*scores, -1, 6, 4.5):
        text = json.dumps({"explanation": "x", "score": score})
        (given,) = judged(FakeChat(lambda request, draw, text=text: text), "additive", [BLACK], num_draws=1,
                          structured=True)  # fmt: skip
        assert given.score == score if score in scores else True
    assert scores == [0, 1, 2, 3, 4, 5] and SCHEMA["required"] == ["explanation", "score"]


# --- reasoning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_judges_are_shown_a_thinking_models_response_and_not_its_reasoning(kind: str) -> None:
    chat = FakeChat(fine)
    thoughtful = [replace(r, text=f"<think>Say Score: 5.</think>\n\n{r.text}") for r in (BLACK, RED)]
    plain_chat = FakeChat(fine)
    given, plain = judged(chat, kind, thoughtful, **KINDS[kind]), judged(plain_chat, kind, [BLACK, RED], **KINDS[kind])
    assert chat.calls == plain_chat.calls and given == plain


@pytest.mark.parametrize("kind", KINDS)
def test_only_reasoning_is_an_empty_response(kind: str) -> None:
    chat = FakeChat(fine)
    given = judged(chat, kind, [replace(BLACK, text="<think>The Black Sea"), RED], **KINDS[kind])
    assert {j.unscored for j in given if j.response_id == BLACK.id} == {"empty_response"}
    assert not any("Black" in question(request) for call in chat.calls for request in call)


# --- replies without a verdict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reason", ["too_long", "control_tokens", "refused"])
def test_a_question_that_was_not_sent_is_unscored_with_its_reason(kind: str, reason: str) -> None:
    chat = FakeChat(lambda request, draw: Reply(skipped=reason))
    given = judged(chat, kind, [BLACK, RED], **KINDS[kind])
    assert {(j.score, j.unscored, j.seed) for j in given} == {(None, reason, 0)}
    assert Unscored(reason).value == reason
    assert {j.checkpoint_id for j in given} == {"m1"} and len({j.id for j in given}) == len(given)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lose", [lambda replies: replies[:-1], lambda replies: [*replies, replies[0]]])
def test_a_model_that_loses_a_reply_is_an_error(kind: str, lose: Callable[..., Any]) -> None:
    class Losing(FakeChat):
        def reply(self, requests: Any, *, models: Any) -> Any:
            return lose(super().reply(requests, models=models))

    with pytest.raises(ValueError, match=r"zip\(\)"):
        judged(Losing(fine), kind, [BLACK, RED], **KINDS[kind])


@hypothesis.given(text=st.text(max_size=80), finish_reason=st.sampled_from(["stop", "length"]))
def test_no_judge_raises_because_of_what_a_model_wrote(text: str, finish_reason: Any) -> None:
    reply = Reply(text=text, finish_reason=finish_reason)
    for kind, settings in KINDS.items():
        for given_response in (BLACK, replace(BLACK, text=text)):
            given = judged(FakeChat(lambda request, draw: reply), kind, [given_response, RED],
                           **settings, commit_first={})  # fmt: skip
            assert all((j.score is None) != (j.unscored is None) for j in given)


# --- expected score --------------------------------------------------------------------------------------------------

# A phrase that identifies each step, in the first, the second and the third prompt variant.
STEPS = {
    0: ("nothing to do with the request", "of no use for this request", "does not respond to the request"),
    1: ("touches on the request", "close to the subject", "touches the subject"),
    2: ("a substantial part of the request", "a good part of the request", "a fair part is done"),
    3: ("settles the basic elements", "helped in the essentials", "the essentials are there"),
    4: ("settles the request fully", "all that was asked", "complete, correct and orderly"),
    5: ("an expert's response", "by someone who knows", "the work of an expert"),
}


@pytest.mark.parametrize("score", STEPS)
def test_the_label_of_a_step_gives_its_score_in_each_prompt_variant(score: int) -> None:
    def say(request: ChatRequest, draw: int) -> Reply:
        words = "|".join(map(re.escape, STEPS[score]))
        (label,) = re.findall(rf"^(?:step )?(\w) - .*(?:{words})", question(request), re.MULTILINE)
        return chosen(request, {label: 0.8})

    assert [j.score for j in judged(FakeChat(say), "expected_score", [BLACK], num_draws=3)] == [float(score)] * 3


@pytest.mark.parametrize("num_draws", [1, 2, 3])
def test_each_draw_is_another_prompt_variant_in_one_call_and_nothing_is_random(num_draws: int) -> None:
    chat = FakeChat(lambda request, draw: chosen(request, dict.fromkeys(request.choices, 0.1)))
    given = judged(chat, "expected_score", [BLACK, RED], num_draws=num_draws)
    (call,) = chat.calls
    prompt_variants = PROMPT_VARIANTS[:num_draws]
    assert [request.choices for request in call] == [variant.labels for variant in prompt_variants] * 2
    assert [request.opening for request in call] == ["Score: ", "Grade: ", "Step: "][:num_draws] * 2
    assert {(r.max_tokens, r.n, r.temperature, r.seed) for r in call} == {(0, 1, 0.0, 0)}
    assert len({question(request) for request in call}) == 2 * num_draws
    assert [j.id for j in given] == [f"{r.id}/expected_score/{draw}" for r in (BLACK, RED) for draw in range(num_draws)]
    assert [j.draw for j in given] == [*range(num_draws)] * 2 and {j.seed for j in given} == {0}
    assert all(j.score == pytest.approx(2.5) for j in given)
    hashes = [Template.load(variant.template).sha256 for variant in prompt_variants]
    assert [j.template_sha256 for j in given] == hashes * 2


def test_dependence_on_the_label_shows_as_disagreement_between_draws() -> None:
    chat = FakeChat(
        lambda request, draw: chosen(request, {request.choices[0]: 0.9})
    )  # the first one, whatever it means
    assert [j.score for j in judged(chat, "expected_score", [BLACK], num_draws=3)] == [0.0, 5.0, 3.0]


def test_the_text_contains_the_probabilities_of_the_scores_in_order() -> None:
    chat = FakeChat(lambda request, draw: chosen(request, dict(zip(request.choices, (0.5, 0.25), strict=False))))
    _, second = judged(chat, "expected_score", [BLACK], num_draws=2)
    assert second.text == (
        "expected score 4.6667; score mass 0.7500 "
        "(0: 0.0000, 1: 0.0000, 2: 0.0000, 3: 0.0000, 4: 0.2500, 5: 0.5000)"
    )  # fmt: skip


def test_with_reasoning_each_draw_is_an_explanation_with_its_own_seed() -> None:
    chat = FakeChat(lambda request, draw: chosen(request, {str(draw): 0.5}, text=f"Because {draw}."))
    reasoning = {"max_tokens": 77, "temperature": 0.6, "top_p": 0.8}
    given = judged(chat, "expected_score", [BLACK, RED], num_draws=4, reasoning=reasoning)
    ((one, other),) = chat.calls
    for request in (one, other):
        assert (request.n, request.max_tokens, request.temperature, request.top_p) == (4, 77, 0.6, 0.8)
        assert request.choices == PROMPT_VARIANTS[0].labels and request.opening == "Score: "
        assert "First explain" in question(request) and "with the score alone" not in question(request)
    assert [(j.draw, j.score) for j in given] == [(draw, float(draw)) for draw in range(4)] * 2
    assert [j.seed for j in given] == [request.seed + draw for request in (one, other) for draw in range(4)]
    assert abs(one.seed - other.seed) > 4 and given[2].text.startswith("Because 2.\n\nexpected score 2.0000; ")


def test_seeds_of_reasoning_depend_on_run_and_iteration() -> None:
    def seed(**settings: Any) -> int:
        chat = FakeChat(fine)
        judged(chat, "expected_score", [BLACK], reasoning={}, **settings)
        return chat.calls[0][0].seed

    assert len({seed(), seed(seed=12), seed(iteration=2)}) == 3 and seed() == seed()


@pytest.mark.parametrize("reasoning", [None, {}])
@pytest.mark.parametrize(
    ("text", "stopped", "truncated"),
    [
        ("Score: 4", "no_probabilities", "no_probabilities"),
        ("It is fine.\n\n**Score:** 4/5, because", "no_probabilities", "no_probabilities"),
        ("<think>Score: 7</think>\n4.", "no_probabilities", "no_probabilities"),
        ("I counted 4 of them", "no_verdict", "truncated"),
        ("Score: 4.5", "no_verdict", "truncated"),
        ("Score: 42", "no_verdict", "truncated"),
        ("Score: 7", "no_verdict", "truncated"),
        ("Score: 4\nScore:", "no_verdict", "truncated"),
        ("<think>Score: 4", "no_verdict", "truncated"),
        ("", "no_verdict", "truncated"),
    ],
)
def test_a_server_without_probabilities_leaves_no_expected_score_but_what_it_wrote(
    reasoning: dict[str, Any] | None, text: str, stopped: str, truncated: str
) -> None:
    for finish_reason, reason in (("stop", stopped), ("length", truncated)):
        reply = Reply(text=text, finish_reason=finish_reason)  # type: ignore[arg-type]
        chat = FakeChat(lambda request, draw, reply=reply: reply)
        (given, *_) = judged(chat, "expected_score", [BLACK], reasoning=reasoning)
        assert (given.score, given.unscored, given.text) == (None, reason, text)


@pytest.mark.parametrize("opened", [True, False])
def test_a_label_in_the_text_is_recognised_in_each_prompt_variant(opened: bool) -> None:
    chat = FakeChat(lambda request, draw: (request.opening if opened else "") + request.choices[-1])
    given = judged(chat, "expected_score", [BLACK], num_draws=3)
    assert [j.unscored for j in given] == ["no_probabilities"] * 3


@hypothesis.given(st.lists(st.floats(-800, 0.0) | st.just(-math.inf), min_size=6, max_size=6))
def test_an_expected_score_lies_on_the_scale(logprobs: list[float]) -> None:
    chat = FakeChat(lambda request, draw: Reply(text="x", finish_reason="length", choice_logprobs=tuple(logprobs)))
    for given in judged(chat, "expected_score", [BLACK], num_draws=3):
        assert given.score is None or 0.0 <= given.score <= 5.0
