"""A judge that scores, as anchor: outcomes, requests, missing scores, and refused settings."""

import re
from pathlib import Path
from typing import Any

import pytest
from cases.judging import PROMPT, FakeChat, chosen, response, shown
from pydantic import TypeAdapter

from selfreward import judging, recipe
from selfreward.errors import RecipeError
from selfreward.evaluation.preference import anchor_health, different_pairs, outcomes
from selfreward.judging import recipe_problems
from selfreward.parts import Anchor
from selfreward.problems import warnings_of
from selfreward.records import Checkpoint, Comparison, Message, Prompt, Response
from selfreward.requests import ChatRequest, Reply

MODELS = {name: Checkpoint("m0", Path("nowhere"), 0) for name in ("policy", "initial")}
ANCHOR: TypeAdapter[recipe.AnchorSection] = TypeAdapter(recipe.AnchorSection)
JUDGE: TypeAdapter[recipe.JudgingSection] = TypeAdapter(recipe.JudgingSection)
CRITERIA = [{"name": "Truth", "description": "True."}, {"name": "Brevity", "description": "Short."}]


class Initial(FakeChat):
    by = "initial"


def digits(request: ChatRequest, draw: int) -> str:
    """The score in draw d is the d-th digit that the response names; "-" is no verdict."""
    found = re.search(r"[0-9-]+", shown(request, "response") or "")
    assert found
    digit = (found[0] * request.n)[draw]
    return "I would rather not say." if digit == "-" else f"Score: {digit}"


def anchor(chat: FakeChat, kind: str, **section: Any) -> Anchor:
    settings = {"kind": kind, "by": "initial", **section} if kind != "verifier" else {"kind": kind, **section}
    return judging.build_anchor(
        ANCHOR.validate_python(settings),
        chats={"policy": chat, "initial": chat, "best": chat},
        engine=None,  # type: ignore[arg-type]
        seed=3,
    )


def compared(chat: FakeChat, *pairs: tuple[str, str], kind: str = "additive", **section: Any) -> list[Comparison]:
    mine = [response(f"a{i}", one) for i, (one, _) in enumerate(pairs)]
    others = [response(f"b{i}", other) for i, (_, other) in enumerate(pairs)]
    return anchor(chat, kind, **section).compare([PROMPT] * len(pairs), mine, others, models=MODELS, iteration=4)


def test_the_higher_mean_score_wins() -> None:
    chat = Initial(digits)
    found = compared(chat, ("445", "531"), ("1", "2"), ("1 3", "1 2"), ("3-5", "444"), num_draws=3)
    assert [c.preference for c in found] == [1.0, 0.0, 0.5, 0.5]
    assert len(chat.calls) == 1
    first = found[0]
    assert (first.response_id, first.other_id, first.shown_first) == ("p/a0", "p/b0", "")
    assert len({c.id for c in found}) == 4
    assert first.judge == "additive" and first.checkpoint_id == "m0" and first.template_sha256
    assert first.text == "4.33333 against 3"


def test_each_response_is_scored_once_however_many_baselines_there_are() -> None:
    chat = Initial(digits)
    prompts = [PROMPT, Prompt("q", (Message("user", "Another?"),))]
    new = [response("new", "3"), response("new", "2", prompt_id="q")]
    previous = [response("t1", "1"), response("t1", "5", prompt_id="q")]
    first = [response("t0", "4"), response("t0", "5", prompt_id="q")]  # on q the same text as t1
    matchups = different_pairs(prompts, new, [previous, first])
    sides: list[list[Any]] = [[*side] for side in zip(*matchups, strict=True)]
    found = anchor(chat, "additive", num_draws=1, temperature=0.0).compare(*sides, models=MODELS, iteration=2)
    ((*asked,),) = chat.calls
    assert sorted(shown(request, "response") or "" for request in asked) == ["1", "2", "3", "4", "5"]
    assert len({c.id for c in found}) == len(found) == 3
    baselines = [previous, first]
    assert [[o.value for o in outcomes(new, baseline, found, baselines)] for baseline in baselines] == [
        [1.0, 0.0],
        [0.0, 0.0],
    ]
    assert all(o.was_compared and o.consistent is None for o in outcomes(new, previous, found, baselines))


def test_scores_of_a_response_are_the_same_whenever_it_is_compared() -> None:
    def seeds(iteration: int, baseline: str) -> int:
        chat = Initial(digits)
        one, other = response("t1", "3"), response(baseline, "2")
        anchor(chat, "additive").compare([PROMPT], [one], [other], models=MODELS, iteration=iteration)
        return next(request.seed for request in chat.calls[0] if shown(request, "response") == "3")

    assert seeds(1, "t0") == seeds(2, "t2")


def test_a_response_without_any_score_leaves_the_comparison_unscored() -> None:
    found = compared(Initial(digits), ("---", "555"), ("555", "--"), ("-4-", "333"), num_draws=3)
    assert [(c.preference, c.unscored) for c in found] == 2 * [(None, "no_verdict")] + [(1.0, None)]
    assert (
        outcomes([response("a0", "---")], [response("b0", "555")], found[:1], [[response("b0", "555")]])[0].value
        is None
    )


def test_a_model_without_text_loses_and_is_not_missing() -> None:
    chat = Initial(digits)
    found = compared(chat, ("", "0"), ("0", " \n"), ("", ""), ("", "-"), num_draws=1, temperature=0.0)
    assert [(c.preference, c.unscored) for c in found] == [(0.0, None), (1.0, None), (0.5, None), (None, "no_verdict")]
    assert len(chat.calls[0]) == 3


def test_equal_texts_are_not_scored_and_tie() -> None:
    chat = Initial(digits)
    assert [c.preference for c in compared(chat, ("4", "4"), ("", " "))] == [0.5] * 2
    assert chat.calls == []


def test_every_kind_that_scores_can_be_the_anchor() -> None:
    def mass(request: ChatRequest, draw: int) -> Reply:
        good = "Good" in (shown(request, "response") or "")
        return chosen(request, {"5": 0.6, "1": 0.3} if good else {"5": 0.3, "1": 0.6})

    for kind, chat, section in (
        ("expected_score", Initial(mass), {"num_draws": 1}),
        (
            "rubric",
            Initial(lambda request, _: f"Score: {len(shown(request, 'response') or '') - 3}"),
            {"criteria": CRITERIA},
        ),
    ):
        found = compared(chat, ("Good.", "Bad."), ("Bad.", "Good."), kind=kind, **section)
        assert [c.preference for c in found] == [1.0, 0.0] and len(chat.calls) == 1
        assert {c.judge for c in found} == {kind}
    checked = Prompt("p", PROMPT.messages, checks=({"kind": "punctuation:no_comma"},))
    good, bad, silent = response(0, "No comma"), response(1, "One, two"), response(2, "")
    verifier = anchor(Initial(digits), "verifier")
    found = verifier.compare([checked] * 2, [good, bad], [bad, silent], models=MODELS, iteration=1)
    assert [c.preference for c in found] == [1.0, 0.5]  # by its checks, an empty text is no worse than a comma
    (unchecked,) = verifier.compare([PROMPT], [good], [bad], models=MODELS, iteration=1)
    assert (unchecked.preference, unchecked.unscored) == (None, "no_checks")


def test_an_anchor_with_constant_scores_is_invalid_and_has_no_position_bias() -> None:
    def health(other: str) -> Any:
        prompts = [Prompt(f"p{i}", PROMPT.messages) for i in range(30)]
        mine: list[Response] = [response(0, f"{i % 2} 4", prompt_id=p.id) for i, p in enumerate(prompts)]
        others = [response(1, other, prompt_id=p.id) for p in prompts]
        chat = Initial(lambda r, d: "Score: 2" if other == "same" else f"Score: {(shown(r, 'response') or '')[0]}")
        found = anchor(chat, "additive").compare(prompts, mine, others, models=MODELS, iteration=1)
        return anchor_health(found, outcomes(mine, others, found, [others]))

    alike, apart = health("same"), health("1")
    assert "cannot distinguish" in alike.invalid
    assert apart.invalid is None and apart.consistency is None


def test_responses_of_other_prompts_are_refused() -> None:
    foreign = response(1, "3", prompt_id="q")
    with pytest.raises(ValueError, match="not responses to the prompt p"):
        anchor(Initial(digits), "additive").compare([PROMPT], [response(0, "2")], [foreign], models=MODELS, iteration=1)


@pytest.mark.parametrize(
    ("section", "message"),
    [({"kind": "additive", "by": "initail"}, r"^evaluation.anchor.by: .*did you mean 'initial'")],
)
def test_an_anchor_that_cannot_be_built_is_refused_with_its_location(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        anchor(Initial(digits), **section)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"kind": "reward_model", "by": "initial"}, r"^evaluation.anchor.by: initial is a generative model"),
        ({"kind": "rubric", "by": "initial", "criteria": CRITERIA, "normalise": True}, "^evaluation.anchor.normalise:"),
    ],
)
def test_an_anchor_that_cannot_measure_is_refused_with_its_location(section: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        anchor_section = ANCHOR.validate_python(section)
        found = recipe_problems.judge_problems(anchor_section, [PROMPT], where="evaluation.anchor")
        warnings_of([*found, *recipe_problems.anchor_section_problems(anchor_section)])


def test_a_second_name_for_the_same_weights_is_detected() -> None:
    section = JUDGE.validate_python({"kind": "pairwise", "by": "twin"})
    same, other = {"policy": "m0", "initial": "m0", "twin": "m0"}, {"policy": "m0", "initial": "m0", "twin": "m1"}
    evaluation = recipe.EvaluationSection()
    with pytest.raises(RecipeError, match="anchor_may_label"):
        warnings_of(recipe_problems.shared_model_problems(section, evaluation, same))
    assert warnings_of(recipe_problems.shared_model_problems(section, evaluation, other)) == []


# --- judges that may label with an anchor ----------------------------------------------------------------------------

ADDITIVE = {"kind": "additive", "by": "initial"}


@pytest.mark.parametrize(
    ("judge", "measuring", "is_shared"),
    [
        ({"kind": "pairwise"}, {"kind": "pairwise"}, True),
        ({"kind": "pairwise", "by": "best"}, {}, True),
        ({"kind": "pairwise", "by": "initial"}, {}, True),
        ({"kind": "pairwise", "by": "gpt"}, {"by": "gpt"}, True),
        ({"kind": "pairwise", "by": "gpt"}, {}, False),
        ({"kind": "pairwise"}, {"by": "gpt"}, False),
        ({"kind": "expected_score"}, {}, False),
        ({"kind": "expected_score"}, {"kind": "expected_score", "by": "initial"}, True),
        ({"kind": "additive"}, ADDITIVE, True),
        ({"kind": "pairwise"}, ADDITIVE, False),
        ({"kind": "reward_model", "by": "rm"}, {"kind": "reward_model", "by": "rm"}, True),
        ({"kind": "reward_model", "by": "rm"}, {"kind": "reward_model", "by": "other"}, False),
        (
            {"kind": "ensemble", "members": [{"kind": "expected_score"}, {"kind": "additive", "num_draws": 2}]},
            ADDITIVE,
            True,
        ),
        ({"kind": "ensemble", "members": [{"kind": "expected_score"}, {"kind": "verifier"}]}, ADDITIVE, False),
        ({"kind": "verifier"}, {"kind": "verifier"}, False),
    ],
)
def test_one_model_with_one_template_labels_and_measures_only_when_allowed(
    judge: dict[str, Any], measuring: dict[str, Any], is_shared: bool
) -> None:
    section, measures = JUDGE.validate_python(judge), ANCHOR.validate_python(measuring)
    refused, allowed = (recipe.EvaluationSection(anchor=measures, anchor_may_label=may) for may in (False, True))
    if is_shared:
        with pytest.raises(RecipeError, match=r"^evaluation.anchor: .* measures.*anchor_may_label: true$"):
            warnings_of(recipe_problems.shared_model_problems(section, refused, {}))
    else:
        warnings_of(recipe_problems.shared_model_problems(section, refused, {}))
    warned = warnings_of(recipe_problems.shared_model_problems(section, allowed, {}))
    assert any("anchor_may_label is true" in sentence for sentence in warned) == is_shared


def test_a_verifier_may_label_and_measure_with_a_warning() -> None:
    section = recipe.VerifierSection(kind="verifier")
    (sentence,) = warnings_of(
        recipe_problems.shared_model_problems(section, recipe.EvaluationSection(anchor=section), {})
    )
    assert "verifiers" in sentence and "label and measure" in sentence


def test_an_anchor_that_cannot_score_the_held_out_prompts_is_warned_about() -> None:
    verifier = recipe.VerifierSection(kind="verifier")
    (sentence,) = warnings_of(recipe_problems.judge_problems(verifier, [PROMPT], where="evaluation.anchor"))
    assert sentence.startswith("evaluation.anchor.kind is verifier, but ") and " prompts have no checks: " in sentence
    asking = recipe.PairwiseAnchorSection(reference_answer=True)
    assert warnings_of(recipe_problems.judge_problems(asking, [PROMPT], where="evaluation.anchor")) == []
    bare = Prompt("q", PROMPT.messages)
    assert (
        "evaluation.anchor.reference_answer"
        in warnings_of(recipe_problems.judge_problems(asking, [bare], where="evaluation.anchor"))[0]
    )
