"""The ensemble: formulas by hand, draws, unscored draws, and invariances of its scores."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward import recipe
from selfreward.judging.ensemble import EnsembleJudge
from selfreward.judging.normalising import z_scores
from selfreward.records import Checkpoint, Judgment, Message, Prompt, Response
from selfreward.statistics.scores import mean_scores

MODELS = {"policy": Checkpoint("m1", Path("nowhere"), 1)}


class FixedJudge:
    """Gives the given draws for response i, each a number or the reason why there is none."""

    def __init__(self, *draws_of, by=(), scale=(0.0, 5.0), calls=None, extra=()):
        self.draws_of, self.by, self.scale = draws_of, frozenset(by), scale
        self.calls = [] if calls is None else calls
        self.extra = extra

    def judge(self, prompts, responses, *, models, iteration):
        self.calls.append(self)
        own = [
            judgment_of(f"p#{index}", draw, outcome)
            for index, draws in enumerate(self.draws_of)
            for draw, outcome in enumerate(draws)
        ]
        wanted = {response.id for response in responses}
        return [judgment for judgment in (*own, *self.extra) if judgment.response_id in wanted]


def judgment_of(response_id, draw, outcome, *, part="", other_id="", shown_first=""):
    lost = isinstance(outcome, str)
    return Judgment(
        id=f"{response_id}/fixed/{draw}{part}{other_id}",
        prompt_id="p",
        response_id=response_id,
        judge="fixed",
        draw=draw,
        score=None if lost else outcome,
        unscored=outcome if lost else None,
        text="",
        part=part,
        other_id=other_id,
        shown_first=shown_first,
    )


def ensemble(members, **settings):
    kinds = [{"kind": "verifier"}, {"kind": "verifier"}]  # the judges themselves are given
    return EnsembleJudge(recipe.EnsembleSection(kind="ensemble", members=kinds, **settings), members)


def judged(members, num_responses, *, order=None, **settings):
    """The ensemble's own judgments and those of its members."""
    responses = [Response(f"p#{i}", "p", (1,), (2,), None, "a", "stop", 0, "m1") for i in range(num_responses)]
    responses = [responses[i] for i in order] if order else responses
    prompts = [Prompt("p", (Message("user", "Write."),))]
    every = ensemble(members, **settings).judge(prompts, responses, models=MODELS, iteration=1)
    return [j for j in every if not j.part], [j for j in every if j.part]


def scores_of(members, num_responses, **settings):
    own, _ = judged(members, num_responses, **settings)
    return {(j.response_id, j.draw): j.score for j in own}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"combine": "mean"}, 3.0),
        ({"combine": "worst_case"}, 1.0),
        ({"combine": "mean_minus_variance"}, 3.0 - 8 / 3),
        ({"combine": "mean_minus_variance", "variance_weight": 0.5}, 3.0 - 4 / 3),
    ],
)
def test_ensemble_combines_by_the_formula(settings, expected):
    members = {"a": FixedJudge([1.0]), "b": FixedJudge([5.0]), "c": FixedJudge([3.0])}
    ((judgment,), _) = judged(members, 1, normalise=False, **settings)
    assert judgment.score == pytest.approx(expected)
    assert (judgment.judge, judgment.draw, judgment.part, judgment.unscored) == ("ensemble", 0, "", None)
    assert judgment.text == "a: 1\nb: 5\nc: 3"


def test_ensemble_normalises_over_all_responses_and_draws():
    # a: mean 2, deviation 1. b: no spread, so it has no effect.
    members = {"a": FixedJudge([1.0], [3.0]), "b": FixedJudge([0.7], [0.7])}
    own, _ = judged(members, 2)
    assert [j.score for j in own] == pytest.approx([-0.5, 0.5])
    assert own[0].text == "a: 1 (z -1.000)\nb: 0.7 (z +0.000)"
    assert scores_of({"a": FixedJudge([4.0]), "b": FixedJudge([1.0])}, 1) == {("p#0", 0): 0.0}
    # Draws 0, 2 and 4, 6: mean 3, variance (9 + 1 + 1 + 9) / 4 = 5.
    drawn = scores_of({"a": FixedJudge([0.0, 2.0], [4.0, 6.0]), "b": FixedJudge([1.0], [1.0])}, 2)
    assert [2 * score * math.sqrt(5) for score in drawn.values()] == pytest.approx([-3, -1, 1, 3])


def test_ensemble_pairs_draws_and_repeats_the_score_of_a_verifier():
    members = {"a": FixedJudge([1.0, 2.0, 3.0]), "b": FixedJudge([10.0, 20.0, 30.0]), "c": FixedJudge([100.0])}
    own, kept = judged(members, 1, normalise=False)
    assert [(j.draw, j.score) for j in own] == [(0, 111 / 3), (1, 122 / 3), (2, 133 / 3)]
    assert len(kept) == 7 and len({j.id for j in (*own, *kept)}) == 10


@pytest.mark.parametrize("combine", ["mean", "worst_case", "mean_minus_variance"])
def test_a_draw_that_one_member_lost_is_lost_with_its_reason(combine):
    members = {"a": FixedJudge([1.0, "truncated"], [5.0, 5.0]), "b": FixedJudge([2.0], ["too_long"])}
    own, _ = judged(members, 2, normalise=False, combine=combine)
    assert [j.unscored for j in own] == [None, "truncated", "too_long", "too_long"]
    assert [j.score is None for j in own] == [False, True, True, True]
    assert own[1].text == "a: unscored, truncated\nb: 2"


def test_an_unscored_draw_is_not_in_the_members_mean():
    with_loss = {"a": FixedJudge([1.0], ["truncated"], [3.0]), "b": FixedJudge([0.0], [0.0], [0.0])}
    own, _ = judged(with_loss, 3)
    assert [j.score for j in own] == [pytest.approx(-0.5), None, pytest.approx(0.5)]


def test_members_judgments_are_stored_by_name_and_count_in_no_mean():
    criterion = judgment_of("p#0", 0, 2.0, part="clarity")
    members = {"x@policy": FixedJudge([4.0], extra=[criterion]), "x@initial": FixedJudge([1.0])}
    own, kept = judged(members, 1, normalise=False)
    assert sorted((j.part, j.score) for j in kept) == [("x@initial", 1.0), ("x@policy", 4.0), ("x@policy/clarity", 2.0)]
    assert {j.judge for j in kept} == {"fixed"} and len({j.id for j in (*own, *kept)}) == 4
    # A criterion is part of its member's score and is not counted again.
    assert [j.score for j in own] == [2.5]
    assert mean_scores(own) == {"p#0": 2.5}


def test_comparisons_of_one_draw_are_one_score():
    compared = [
        judgment_of("p#0", 0, 1.0, other_id="p#1"),
        judgment_of("p#0", 0, 0.5, other_id="p#2"),
        judgment_of("p#0", 0, "truncated", other_id="p#3"),
    ]
    own, _ = judged({"a": FixedJudge(extra=compared), "b": FixedJudge([0.25])}, 1, normalise=False)
    assert [(j.draw, j.score) for j in own] == [(0, 0.5)]


@pytest.mark.parametrize("lost", [(), (1,), (1, 2), (1, 2, 3)])
def test_a_judge_with_only_position_bias_has_no_preference_however_many_draws_are_lost(lost):
    """Of four draws in each order those in `lost` are unscored in the first order; the response shown first gets
    0.95."""
    compared = [
        judgment_of(
            own, draw, "no_choice" if draw in lost and first == "p#0" else 0.95 if own == first else 0.05,
            other_id=other, shown_first=first,
        )
        for own, other in (("p#0", "p#1"), ("p#1", "p#0"))
        for first in ("p#0", "p#1")
        for draw in range(4)
    ]  # fmt: skip
    alone = mean_scores(compared)
    drawn_once = FixedJudge([0.5], [0.5], by={"policy"})
    together = scores_of({"a": FixedJudge(extra=compared), "b": drawn_once}, 2, normalise=False)
    assert alone == pytest.approx({"p#0": 0.5, "p#1": 0.5})
    assert together == pytest.approx({("p#0", 0): 0.5, ("p#1", 0): 0.5})


def test_a_draw_with_only_one_order_of_a_comparison_does_not_count():
    compared = [
        judgment_of(
            "p#0", draw, "no_choice" if (draw, first) == (0, "p#1") else score, other_id="p#1", shown_first=first
        )
        for draw in range(2)
        for first, score in (("p#0", 0.9), ("p#1", 0.3))
    ]
    own, _ = judged({"a": FixedJudge(extra=compared), "b": FixedJudge([0.5, 0.5])}, 1, normalise=False)
    assert [(j.draw, j.score, j.unscored) for j in own] == [(0, None, "no_choice"), (1, pytest.approx(0.55), None)]


def test_ensemble_groups_members_by_model():
    calls = []
    by = {"a": {"initial"}, "b": {"policy"}, "c": {"initial", "policy"}, "d": {"policy"}, "e": set(), "f": {"initial"}}
    members = {name: FixedJudge([1.0], by=models, calls=calls) for name, models in by.items()}
    judged(members, 1)
    asked = [next(name for name, member in members.items() if member is called) for called in calls]
    assert asked == ["b", "d", "c", "e", "a", "f"]
    assert ensemble(members).by == {"policy", "initial"}


def test_ensemble_scale():
    same = {"a": FixedJudge(scale=(0.0, 5.0)), "b": FixedJudge(scale=(0.0, 5.0))}
    other = {"a": FixedJudge(scale=(0.0, 5.0)), "b": FixedJudge(scale=(0.0, 1.0))}
    assert ensemble(same, normalise=False, combine="worst_case").scale == (0.0, 5.0)
    assert ensemble(same, normalise=False, combine="mean_minus_variance").scale is None
    assert ensemble(same).scale is None
    assert ensemble(other, normalise=False).scale is None


# A grid, so that scores are equal or clearly different.
SCORES = st.integers(-50, 50).map(lambda tenths: tenths / 10)
OUTCOMES = st.one_of(SCORES, st.sampled_from(["truncated", "no_verdict"]))
COMBINE = st.sampled_from(["mean", "worst_case", "mean_minus_variance"])


@st.composite
def panels(draw, outcomes=SCORES):
    """Outcomes of two to four members for one to five responses, each with one draw or all with the same number."""
    num_responses, num_draws = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    return [
        [draw(st.lists(outcomes, min_size=n, max_size=n)) for _ in range(num_responses)]
        for n in draw(st.lists(st.sampled_from([1, num_draws]), min_size=2, max_size=4))
    ]


def members_of(panel):
    return {f"m{index}": FixedJudge(*draws_of) for index, draws_of in enumerate(panel)}


@given(panels(OUTCOMES), COMBINE, st.booleans(), st.randoms())
def test_ensemble_does_not_depend_on_any_order(panel, combine, normalise, random):
    settings = {"combine": combine, "normalise": normalise}
    names, places = [f"m{i}" for i in range(len(panel))], list(range(len(panel[0])))
    own, kept = judged(members_of(panel), len(places), **settings)
    random.shuffle(names)
    random.shuffle(places)
    shuffled = {name: members_of(panel)[name] for name in names}
    own_again, kept_again = judged(shuffled, len(places), order=places, **settings)
    assert sorted(own, key=lambda j: j.id) == sorted(own_again, key=lambda j: j.id)
    assert sorted(kept, key=lambda j: j.id) == sorted(kept_again, key=lambda j: j.id)


@given(panels(OUTCOMES), COMBINE, st.floats(0.01, 100), st.floats(-100, 100))
def test_normalised_ensemble_ignores_the_scale_of_a_member(panel, combine, factor, shift):
    first, *others = panel
    stretched = [[v if isinstance(v, str) else v * factor + shift for v in draws] for draws in first]
    before = scores_of(members_of(panel), len(first), combine=combine)
    after = scores_of(members_of([stretched, *others]), len(first), combine=combine)
    assert after == pytest.approx(before, abs=1e-6)


@given(panels(), st.booleans())
def test_pessimism_never_exceeds_the_mean(panel, normalise):
    means, worst, less = (
        scores_of(members_of(panel), len(panel[0]), combine=combine, normalise=normalise)
        for combine in ("mean", "worst_case", "mean_minus_variance")
    )
    assert means.keys() == worst.keys() == less.keys()
    assert all(worst[key] <= means[key] + 1e-12 and less[key] <= means[key] for key in means)


@given(panels(OUTCOMES), st.booleans())
def test_ensemble_scores_exactly_the_draws_that_every_member_scored(panel, normalise):
    own, _ = judged(members_of(panel), len(panel[0]), normalise=normalise)
    num_draws = max(len(draws_of[0]) for draws_of in panel)
    assert len(own) == num_draws * len(panel[0])
    for judgment in own:
        said = [draws_of[int(judgment.response_id.removeprefix("p#"))] for draws_of in panel]
        outcomes = [draws[judgment.draw] if len(draws) > 1 else draws[0] for draws in said]
        lost = [outcome for outcome in outcomes if isinstance(outcome, str)]
        assert (judgment.score is None) == bool(lost)
        assert judgment.unscored == (lost[0] if lost else None)


@given(st.dictionaries(st.integers(), SCORES, min_size=1, max_size=20))
def test_z_scores_have_mean_0_and_deviation_1(values):
    found = z_scores(values)
    assert found.keys() == values.keys()
    if len(set(values.values())) == 1:
        assert set(found.values()) == {0.0}
    else:
        assert math.fsum(found.values()) == pytest.approx(0, abs=1e-9)
        assert math.fsum(z * z for z in found.values()) / len(found) == pytest.approx(1)


@given(st.lists(st.floats(-1e6, 1e6), max_size=20), st.randoms())
def test_z_scores_are_the_same_to_the_bit_in_any_order(values, random):
    numbered = list(enumerate(values))
    found = z_scores(dict(numbered))
    random.shuffle(numbered)
    assert z_scores(dict(numbered)) == found


def test_rounding_is_not_a_spread():
    assert set(z_scores({"a": 0.1 + 0.2, "b": 0.3, "c": 0.3}).values()) == {0.0}
    assert z_scores({}) == {}
