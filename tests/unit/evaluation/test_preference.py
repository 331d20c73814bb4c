"""Outcomes from comparisons, and the validity of the anchor."""

import math

import pytest

from selfreward.evaluation.preference import Outcome, anchor_health, different_pairs, outcomes
from selfreward.records import Comparison, Message, Prompt, Response


def response(prompt_id, who, text):
    return Response(f"{prompt_id}/{who}", prompt_id, (1,), (2,), None, text, "stop", 0, who)


def in_both_orders(ours, other, first, second):
    """Comparisons in which `ours` has preference `first` when it is shown first, `second` when shown second."""
    return [
        Comparison(
            id=f"{ours.id}~{other.id}/{shown.id}",
            prompt_id=ours.prompt_id,
            response_id=ours.id,
            other_id=other.id,
            shown_first=shown.id,
            judge="test",
            preference=preference,
            unscored=None if preference is not None else "no verdict",
        )
        for shown, preference in ((ours, first), (other, second))
    ]


def judged(*preferences):
    """Outcomes and comparisons of one prompt each, with these preferences in both orders."""
    ours = [response(f"p{i}", "new", "ours") for i in range(len(preferences))]
    theirs = [response(f"p{i}", "old", "theirs") for i in range(len(preferences))]
    comparisons = [c for a, b, both in zip(ours, theirs, preferences, strict=True) for c in in_both_orders(a, b, *both)]
    return outcomes(ours, theirs, comparisons, [theirs]), comparisons


def health(*preferences):
    found, comparisons = judged(*preferences)
    return anchor_health(comparisons, found)


def test_the_outcome_is_the_mean_over_both_orders():
    found, _ = judged((0.9, 0.7), (0.9, 0.1), (0.2, 0.4))
    assert [o.value for o in found] == pytest.approx([0.8, 0.5, 0.3])
    assert [o.consistent for o in found] == [True, False, True]


@pytest.mark.parametrize("both", [(None, 0.9), (0.9, None), (None, None)])
def test_an_unreadable_order_is_neither_a_tie_nor_a_loss(both):
    found, comparisons = judged(both, (0.9, 0.8))
    assert found == [
        Outcome("p0", None, was_compared=True),
        Outcome("p1", pytest.approx(0.85), True, was_compared=True),
    ]
    assert anchor_health(comparisons, found).unscored_rate == sum(p is None for p in both) / 4


def test_the_same_text_is_a_tie_without_a_query():
    prompts = [Prompt(f"p{i}", (Message("user", "?"),)) for i in range(3)]
    new = [response("p0", "new", "a"), response("p1", "new", ""), response("p2", "new", "c")]
    previous = [response("p0", "old", "a"), response("p1", "old", ""), response("p2", "old", "x")]
    initial = [response("p0", "first", "b"), response("p1", "first", ""), response("p2", "first", "x")]
    compared = different_pairs(prompts, new, [previous, initial])
    # p0 differs from the initial alone, p1 from none, and p2 was compared with the same baseline text twice.
    assert [(a.id, b.id) for _, a, b in compared] == [("p2/new", "p2/old"), ("p0/new", "p0/first")]
    comparisons = [c for _, a, b in compared for c in in_both_orders(a, b, 0.9, 0.9)]
    against = [outcomes(new, side, comparisons, [previous, initial]) for side in (previous, initial)]
    assert [o.value for o in against[0]] == [0.5, 0.5, 0.9]
    assert [o.value for o in against[1]] == [0.9, 0.5, 0.9]
    assert anchor_health(comparisons, [o for side in against for o in side]).consistency.num_units == 2
    assert anchor_health([], [Outcome("p0", 0.5)]) is None


def test_an_anchor_with_only_position_bias_is_invalid():
    assert "position" in health(*[(0.9, 0.1)] * 8).invalid
    assert "position" in health(*[(0.8, 0.3), (0.1, 0.6), (0.7, 0.4), (0.9, 0.8)]).invalid


def test_an_anchor_that_distinguishes_nothing_is_invalid():
    assert "cannot distinguish" in health(*[(0.5, 0.5)] * 8).invalid
    assert "position" in health(*[(0.7, 0.3)] * 8).invalid
    assert "in both orders" in health(*[(None, 0.5)] * 8).invalid


def test_a_good_anchor_is_valid_also_when_it_is_unanimous():
    assert health(*[(0.9, 0.8), (0.2, 0.1), (0.9, 0.7), (0.4, 0.3), (0.7, 0.6), (0.1, 0.1)]).invalid is None
    assert health(*[(1.0, 1.0)] * 8).invalid is None
    assert health(*[(0.7, 0.6)] * 8).invalid is None
    found = health(*[(0.9, 0.8)] * 30 + [(0.9, 0.2)] * 10)
    assert found.invalid is None and found.consistency.mean == 0.75


def test_an_anchor_not_shown_to_beat_chance_is_invalid_with_its_interval_as_reason():
    found = health(*[(0.9, 0.8)] * 7 + [(0.9, 0.2)])
    assert found.consistency.mean == 7 / 8 and found.consistency.low < 0.5
    assert "88% of 8 prompts" in found.invalid and "random anchor" in found.invalid
    assert "position" not in found.invalid  # position bias is not shown either
    assert "random anchor" in health(*[(1.0, 1.0)] * 5).invalid


def test_a_random_anchor_is_hardly_ever_valid():
    for num_prompts in (4, 6, 8, 12, 24, 48):
        passed = [
            k
            for k in range(num_prompts + 1)
            if health(*[(0.9, 0.8)] * k + [(0.9, 0.2)] * (num_prompts - k)).invalid is None
        ]
        chance = sum(math.comb(num_prompts, k) for k in passed) / 2**num_prompts
        assert chance <= 0.03  # 2.5 %, and what the resampling of the interval adds


def test_the_estimate_counts_too_when_there_are_many_prompts():
    found = health(*[(0.9, 0.8)] * 232 + [(0.9, 0.2)] * 168)
    assert found.consistency.low > 0.5
    assert "58% of the prompts" in found.invalid and "position" in found.invalid
