"""The verifier judge: scores, missing checks, and the text of its judgments."""

from pathlib import Path

import pytest

from selfreward import recipe
from selfreward.errors import RecipeError
from selfreward.judging.verifier import VerifierJudge
from selfreward.records import Checkpoint, Message, Prompt, Response

MODEL = Checkpoint("m", Path("nowhere"), 0)
NO_COMMA = {"kind": "punctuation:no_comma"}
TITLE = {"kind": "detectable_format:title"}


def prompt(name, *checks):
    return Prompt(name, (Message("user", "Write."),), tuple(checks))


def response(prompt_id, text, number=0):
    return Response(f"{prompt_id}/{number}", prompt_id, (1,), (2,), None, text, "stop", 0, "m")


def judged(prompts, responses, aggregate="share"):
    judge = VerifierJudge(recipe.VerifierSection(kind="verifier", aggregate=aggregate))
    return judge.judge(prompts, responses, models={"policy": MODEL}, iteration=1)


def test_share_and_all():
    prompts = [prompt("p", NO_COMMA, TITLE), prompt("q", TITLE)]
    responses = [response("q", "<<a>>"), response("p", "<<a>>"), response("p", "a", 1), response("p", "a, b", 2)]
    share = judged(prompts, responses)
    assert [judgment.score for judgment in share] == [1.0, 1.0, 0.5, 0.0]
    assert [judgment.response_id for judgment in share] == ["q/0", "p/0", "p/1", "p/2"]
    assert [judgment.prompt_id for judgment in share] == ["q", "p", "p", "p"]
    assert [judgment.score for judgment in judged(prompts, responses, "all")] == [1.0, 1.0, 0.0, 0.0]
    assert len({judgment.id for judgment in share}) == len(share)


def test_text_lists_each_check_with_its_outcome():
    (judgment,) = judged([prompt("p", NO_COMMA, TITLE)], [response("p", "a")])
    assert judgment.text.splitlines() == [
        'pass {"kind": "punctuation:no_comma"}',
        'fail {"kind": "detectable_format:title"}',
    ]


def test_no_checks_is_unscored_but_no_text_scores_zero():
    bare, empty = judged([prompt("p"), prompt("q", NO_COMMA)], [response("p", "a"), response("q", " \n")])
    assert (bare.score, bare.unscored) == (None, "no_checks")
    assert (empty.score, empty.unscored) == (0.0, None)


def test_hash_is_that_of_the_checks():
    prompts = [prompt("p", NO_COMMA), prompt("q", {"count": None, "kind": "punctuation:no_comma"}), prompt("r", TITLE)]
    p, q, r = judged(prompts, [response(name, "a") for name in "pqr"])
    assert p.template_sha256 == q.template_sha256 != r.template_sha256
    assert len(p.template_sha256) == 64


def test_judges_without_a_model_and_refuses_broken_checks():
    assert VerifierJudge(recipe.VerifierSection(kind="verifier")).by == frozenset()
    with pytest.raises(RecipeError, match="did you mean 'punctuation:no_comma'"):
        judged([prompt("p", {"kind": "punctuation:nocomma"})], [response("p", "a")])


def test_the_package_builds_it():
    from selfreward.judging import build

    judge = build(recipe.VerifierSection(kind="verifier"), chats={}, engine=None, seed=0)
    assert isinstance(judge, VerifierJudge)
