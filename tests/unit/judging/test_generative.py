"""Judges on a deterministic test engine: their requests, and the judgments from its replies."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.engine import MERGED, FakeEngine, shown

from selfreward import judging, recipe
from selfreward.chats.local import LocalChat
from selfreward.errors import EngineError, RecipeError
from selfreward.judging.comparing import preference_for_first
from selfreward.judging.expected_score import expected_score
from selfreward.records import Checkpoint, Message, Prompt, Response
from selfreward.requests import GenerationRequest, Sample
from selfreward.seeding import seed_of
from selfreward.templates import Template

MODEL = Checkpoint(id="hash-of-m1", path=Path("m1"), iteration=1)
MODELS = {"policy": MODEL, "initial": MODEL}


def says(text: str, *, finish_reason: Any = "stop") -> Sample:
    return Sample(
        token_ids=tuple(map(ord, text)), token_logprobs=(-0.5,) * len(text), text=text, finish_reason=finish_reason
    )


def chooses(*probabilities: float) -> Sample:
    logprobs = tuple(math.log(p) if p else -math.inf for p in probabilities)
    return Sample(token_ids=(1,), token_logprobs=(-1.0,), text="x", finish_reason="length", choice_logprobs=logprobs)


def prompt(index: int) -> Prompt:
    return Prompt(
        id=f"p{index}", messages=(Message("system", "Be brief."), Message("user", f"Name sea number {index}."))
    )


def response(index: int, text: str, *, prompt_index: int = 0) -> Response:
    return Response(
        id=f"p{prompt_index}#{index}",
        prompt_id=f"p{prompt_index}",
        prompt_token_ids=(1,),
        token_ids=(5, 2),
        token_logprobs=None,
        text=text,
        finish_reason="stop",
        seed=0,
        checkpoint_id="m",
    )


PROMPTS = [prompt(0), prompt(1)]


def chats(engine: FakeEngine, *names: str) -> dict[str, LocalChat]:
    return {name: LocalChat(name, engine) for name in ("policy", "initial", "best", *names)}


def build(engine: FakeEngine, *, seed: int = 11, **section: Any) -> Any:
    sections = {"additive": recipe.AdditiveSection, "expected_score": recipe.ExpectedScoreSection}
    if section["kind"] == "expected_score":
        section = {"num_draws": 1, **section}
    return judging.build(sections[section["kind"]](**section), engine=engine, seed=seed, chats=chats(engine))


# --- additive --------------------------------------------------------------------------------------------------------


def test_additive_requests_all_draws_at_once_and_stores_every_draw() -> None:
    engine = FakeEngine(lambda request, draw: says(["Fine.\nScore: 4", "I like it.", "Score: 8/10"][draw]))
    responses = [response(0, "The Black Sea."), response(0, "The Red Sea.", prompt_index=1)]
    drawn = build(engine, kind="additive", num_draws=3, temperature=0.6, top_p=0.8, max_tokens=99).judge(
        PROMPTS, responses, models=MODELS, iteration=2
    )
    ((one, other),) = engine.calls
    assert engine.loaded == [MODEL]
    for request in (one, other):
        assert (request.n, request.temperature, request.top_p, request.max_tokens) == (3, 0.6, 0.8, 99)
        assert not request.choice_token_ids
    assert "The Black Sea." in shown(one) and "Name sea number 0." in shown(one) and "Be brief." in shown(one)
    assert "The Red Sea." in shown(other) and "Name sea number 1." in shown(other)

    assert [j.id for j in drawn] == [f"{r.id}/additive/{draw}" for r in responses for draw in range(3)]
    assert [(j.score, j.unscored) for j in drawn] == 2 * [(4.0, None), (None, "no_verdict"), (None, "other_scale")]
    assert {type(j.unscored) for j in drawn} == {type(None), str}  # plain strings, which any table can hold
    first = drawn[0]
    assert (first.prompt_id, first.response_id, first.judge, first.draw) == ("p0", "p0#0", "additive", 0)
    assert first.text == "Fine.\nScore: 4" and first.token_ids == tuple(map(ord, first.text))
    assert first.token_logprobs == (-0.5,) * len(first.text)
    assert first.prompt_token_ids == one.prompt_token_ids and first.finish_reason == "stop"
    assert first.checkpoint_id == MODEL.id and first.template_sha256 == Template.load("additive").sha256
    assert [j.seed for j in drawn] == [request.seed + draw for request in (one, other) for draw in range(3)]


def test_seeds_depend_on_run_iteration_and_response_and_on_nothing_else() -> None:
    def seeds(*texts: str, seed: int = 11, iteration: int = 1) -> list[int]:
        engine = FakeEngine(lambda request, draw: says("Score: 1"))
        responses = [response(index, text) for index, text in enumerate(texts)]
        build(engine, kind="additive", seed=seed).judge(PROMPTS, responses, models=MODELS, iteration=iteration)
        return [request.seed for request in engine.calls[0]]

    usual = seeds("a", "b", "c")
    assert usual == [seed_of(11, 1, "judging", f"p0#{index}/additive") for index in range(3)]
    assert seeds("a", "b") == usual[:2] and seeds("x", "", "c") == [usual[0], usual[2]]
    assert not set(usual) & {*seeds("a", "b", "c", seed=12), *seeds("a", "b", "c", iteration=2)}


@pytest.mark.parametrize("kind", ["additive", "expected_score"])
@pytest.mark.parametrize("text", ["", " \n\t", "\u2003"])
def test_a_response_without_text_is_unscored_and_not_sent(kind: str, text: str) -> None:
    engine = FakeEngine(lambda request, draw: says("Score: 5"))
    judge = build(engine, kind=kind)
    drawn = judge.judge(PROMPTS, [response(0, text), response(1, text)], models=MODELS, iteration=1)
    assert len(drawn) == (6 if kind == "additive" else 2) and len({j.id for j in drawn}) == len(drawn)
    assert {(j.score, j.unscored) for j in drawn} == {(None, "empty_response")}
    assert engine.calls == [] and engine.loaded == []


@pytest.mark.parametrize(("kind", "max_tokens"), [("additive", 50), ("expected_score", 1)])
def test_a_prompt_that_does_not_fit_is_unscored_and_not_truncated(kind: str, max_tokens: int) -> None:
    def say(request: GenerationRequest, draw: int) -> Sample:
        return chooses(0, 0, 0, 0, 0, 1) if kind == "expected_score" else says("Score: 5")

    short, longer = response(0, "sea"), response(1, "seas")
    section: dict[str, Any] = {"kind": kind} | ({"max_tokens": 50, "num_draws": 2} if kind == "additive" else {})
    probe = FakeEngine(say)
    build(probe, **section).judge(PROMPTS, [short], models=MODELS, iteration=1)
    fits_exactly = len(probe.calls[0][0].prompt_token_ids) + max_tokens

    engine = FakeEngine(say, context_tokens=fits_exactly)
    drawn = build(engine, **section).judge(PROMPTS, [longer, short], models=MODELS, iteration=1)
    num = len(drawn) // 2
    assert [(j.response_id, j.score, j.unscored) for j in drawn] == (
        [(longer.id, None, "too_long")] * num + [(short.id, 5.0, None)] * num
    )
    assert len(engine.calls[0]) == 1


def test_an_engine_that_drops_a_request_is_an_error() -> None:
    class Forgetful(FakeEngine):
        def generate(self, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
            return super().generate(requests)[:-1]

    engine = Forgetful(lambda request, draw: says("Score: 4"))
    with pytest.raises(ValueError, match="shorter"):
        build(engine, kind="additive").judge(PROMPTS, [response(0, "a"), response(1, "b")], models=MODELS, iteration=1)


# --- expected score --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge_space", [False, True])
def test_expected_score_is_the_mean_under_the_score_tokens(merge_space: bool) -> None:
    engine = FakeEngine(lambda request, draw: chooses(0.1, 0, 0, 0.1, 0.2, 0.1), merge_space=merge_space)
    responses = [response(0, "The Black Sea."), response(1, "The Red Sea.")]
    drawn = build(engine, kind="expected_score").judge(PROMPTS, responses, models=MODELS, iteration=1)
    ((one, other),) = engine.calls
    digits = [ord(str(digit)) + MERGED * merge_space for digit in range(6)]
    for request in (one, other):
        assert (request.n, request.max_tokens, request.temperature) == (1, 1, 0.0)
        assert list(request.choice_token_ids) == digits
        assert shown(request).endswith("[assistant]Score:" + ("" if merge_space else " "))
    assert [j.id for j in drawn] == ["p0#0/expected_score/0", "p0#1/expected_score/0"]
    for item in drawn:
        # (0 * .1 + 3 * .1 + 4 * .2 + 5 * .1) / .5
        assert item.score == pytest.approx(3.2) and item.unscored is None
        assert "3.2000" in item.text and "0.5000" in item.text
    assert (drawn[0].prompt_token_ids, drawn[0].token_ids) == (one.prompt_token_ids, (1,))


def test_too_little_score_mass_is_unscored() -> None:
    engine = FakeEngine(lambda request, draw: chooses(0, 0, 0, 0, 0, 0.3))
    (low,) = build(engine, kind="expected_score", min_score_mass=0.31).judge(
        PROMPTS, [response(0, "a")], models=MODELS, iteration=1
    )
    assert (low.score, low.unscored) == (None, "low_score_mass") and "0.3000" in low.text
    (enough,) = build(engine, kind="expected_score", min_score_mass=0.29).judge(
        PROMPTS, [response(0, "a")], models=MODELS, iteration=1
    )
    assert (enough.score, enough.unscored) == (5.0, None)


def test_no_score_mass_at_all_is_unscored_even_when_none_is_required() -> None:
    verdict, _ = expected_score([-math.inf] * 6, scores=range(6), min_score_mass=0.0)
    assert verdict.unscored == "low_score_mass"


@pytest.mark.parametrize(("certain", "score"), [(i, float(i)) for i in range(6)])
def test_a_certain_judge_gives_its_score_exactly(certain: int, score: float) -> None:
    verdict, _ = expected_score(
        [0.0 if i == certain else -math.inf for i in range(6)], scores=range(6), min_score_mass=0.5
    )
    assert verdict.score == score


def test_a_tokenizer_that_splits_a_digit_is_refused() -> None:
    class Splitting(FakeEngine):
        def encode_text(self, text: str) -> tuple[int, ...]:
            return (*super().encode_text(text), 99) if text.endswith("3") else super().encode_text(text)

    engine = Splitting(lambda request, draw: chooses(0, 0, 0, 0, 0, 1))
    with pytest.raises(RecipeError, match=r"judging: .*'Score: 3' as .*kind: additive"):
        build(engine, kind="expected_score").judge(PROMPTS, [response(0, "a")], models=MODELS, iteration=1)


@pytest.mark.parametrize("logprobs", [(), (-1.0,) * 5, (math.nan,) * 6, (0.5,) * 6])
def test_an_engine_that_gives_no_probabilities_is_an_engine_error(logprobs: tuple[float, ...]) -> None:
    sample = Sample(token_ids=(1,), token_logprobs=(-1.0,), text="", finish_reason="length", choice_logprobs=logprobs)
    engine = FakeEngine(lambda request, draw: sample)
    with pytest.raises(EngineError, match="choice tokens"):
        build(engine, kind="expected_score").judge(PROMPTS, [response(0, "a")], models=MODELS, iteration=1)


# --- pairwise --------------------------------------------------------------------------------------------------------


def anchor(engine: FakeEngine) -> Any:
    return judging.build_anchor(recipe.PairwiseAnchorSection(), chats=chats(engine), engine=engine, seed=0)


def likes_red(request: GenerationRequest, draw: int) -> Sample:
    """Prefers the red sea nine to one in any position, with half of the probability on other tokens."""
    text = shown(request)
    a_is_red = text.index("Red") < text.index("Black")
    return chooses(0.45, 0.05) if a_is_red else chooses(0.05, 0.45)


def test_both_orders_give_the_preference_for_the_same_response() -> None:
    engine = FakeEngine(likes_red)
    red, black = response(0, "The Red Sea."), response(1, "The Black Sea.")
    first, second = anchor(engine).compare([PROMPTS[0]], [red], [black], models=MODELS, iteration=3)
    ((one, other),) = engine.calls
    assert engine.loaded == [MODEL]
    assert shown(one).index("Red") < shown(one).index("Black") and shown(other).index("Black") < shown(other).index(
        "Red"
    )
    assert shown(one).endswith("The better response is Response ")
    assert list(one.choice_token_ids) == [ord("A"), ord("B")]
    assert (first.preference, second.preference) == (pytest.approx(0.9), pytest.approx(0.9))
    assert (first.shown_first, second.shown_first) == (red.id, black.id)
    for comparison in (first, second):
        assert (comparison.response_id, comparison.other_id, comparison.prompt_id) == (red.id, black.id, "p0")
        assert comparison.unscored is None and comparison.checkpoint_id == MODEL.id
        assert comparison.template_sha256 == Template.load("pairwise").sha256
    assert first.id != second.id
    turned = anchor(FakeEngine(likes_red)).compare([PROMPTS[0]], [black], [red], models=MODELS, iteration=3)
    assert [c.preference for c in turned] == [pytest.approx(0.1)] * 2


def test_a_judge_with_only_position_bias_averages_to_a_half() -> None:
    engine = FakeEngine(lambda request, draw: chooses(0.97, 0.01))
    compared = anchor(engine).compare(
        [PROMPTS[0]], [response(0, "sea")], [response(1, "ocean")], models=MODELS, iteration=1
    )
    assert sum(c.preference for c in compared) / 2 == pytest.approx(0.5)
    assert abs(compared[0].preference - 0.5) > 0.4  # and the two orders show it


def test_equal_texts_are_a_half_without_a_call_and_an_empty_response_is_compared() -> None:
    engine = FakeEngine(lambda request, draw: chooses(0.6, 0.2))
    texts = [("same", "same"), ("", ""), ("", "a sea")]
    compared = anchor(engine).compare(
        [prompt(i) for i in range(3)],
        [response(0, one, prompt_index=i) for i, (one, _) in enumerate(texts)],
        [response(1, other, prompt_index=i) for i, (_, other) in enumerate(texts)],
        models=MODELS,
        iteration=1,
    )
    assert [c.preference for c in compared[:4]] == [0.5] * 4
    assert [c.preference for c in compared[4:]] == [pytest.approx(0.75), pytest.approx(0.25)]
    assert [len(call) for call in engine.calls] == [2]


def test_a_comparison_that_does_not_fit_is_unscored() -> None:
    engine = FakeEngine(lambda request, draw: chooses(0.6, 0.2), context_tokens=100)
    compared = anchor(engine).compare([PROMPTS[0]], [response(0, "a")], [response(1, "b")], models=MODELS, iteration=1)
    assert [(c.preference, c.unscored) for c in compared] == [(None, "too_long")] * 2
    assert engine.calls == []


def test_responses_that_do_not_belong_to_the_prompt_are_refused() -> None:
    engine = FakeEngine(likes_red)
    with pytest.raises(ValueError, match="not responses to the prompt p1"):
        anchor(engine).compare([PROMPTS[1]], [response(0, "a")], [response(1, "b")], models=MODELS, iteration=1)


@pytest.mark.parametrize(
    ("logprobs", "preference"),
    [
        ((-1.0, -1.0), 0.5),
        ((0.0, -math.inf), 1.0),
        ((-math.inf, 0.0), 0.0),
        ((-900.0, -0.1), 0.0),
        ((-0.1, -900.0), 1.0),
        ((math.log(0.02), math.log(0.01)), 2 / 3),
        ((-math.inf, -math.inf), None),
    ],
)
def test_preferences(logprobs: tuple[float, float], preference: float | None) -> None:
    assert preference_for_first(*logprobs) == (None if preference is None else pytest.approx(preference))


# --- which model judges ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["policy", "initial", "gpt"])
def test_a_judge_may_be_any_model_of_the_recipe(by: str) -> None:
    engine = FakeEngine(likes_red)
    for section in (
        recipe.AdditiveSection(kind="additive", by=by),
        recipe.ExpectedScoreSection(kind="expected_score", by=by),
    ):
        assert judging.build(section, engine=engine, seed=0, chats=chats(engine, "gpt")).by == {by}
    if by != "policy":  # an anchor must stay the same
        anchor_section = recipe.PairwiseAnchorSection(by=by)
        built: Any = judging.build_anchor(anchor_section, chats=chats(engine, "gpt"), engine=engine, seed=0)
        assert built.by == {by}


def test_a_misspelt_model_is_refused_with_a_hint() -> None:
    engine = FakeEngine(likes_red)
    with pytest.raises(
        RecipeError, match=r"^judging.by: there is no model 'polcy'.*initial, best, gpt; did you mean 'policy'"
    ):
        judging.build(
            recipe.AdditiveSection(kind="additive", by="polcy"), engine=engine, seed=0, chats=chats(engine, "gpt")
        )
    with pytest.raises(RecipeError, match=r"^evaluation.anchor.by: .*'zzz'.*use one of these"):
        judging.build_anchor(recipe.PairwiseAnchorSection(by="zzz"), chats=chats(engine), engine=engine, seed=0)


def test_building_a_judge_does_not_start_the_engine() -> None:
    class Asleep(FakeEngine):
        def encode_text(self, text: str) -> tuple[int, ...]:
            raise AssertionError("the engine was used")

    engine = Asleep(likes_red)
    build(engine, kind="expected_score")
    build(engine, kind="additive")
    anchor(engine)
    assert engine.calls == [] and engine.loaded == []
