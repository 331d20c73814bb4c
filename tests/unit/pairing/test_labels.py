"""How sure a pair is, and whether the judge is to be trusted: `label` and `min_reliability`."""

from typing import Any

import pytest
from cases.pairing import Scores, judged, judgments, response, scored

from selfreward import pairing, recipe
from selfreward.parts import PairingInputs
from selfreward.records import Judgment, Response, Selection
from selfreward.statistics.reliability import reliability_by_prompt


def select(given: PairingInputs, **settings_: Any) -> Selection:
    return pairing.build(recipe.BestVsWorst(kind="best_vs_worst", **settings_)).select(given)


def outcome(given: PairingInputs, **settings_: Any) -> list[float | str]:
    """The labels of the pairs, and the reasons of prompts without one."""
    selection = select(given, **settings_)
    return [*(pair.label for pair in selection.pairs), *(dropped.reason for dropped in selection.dropped)]


def comparisons(first: int, second: int, *probabilities: float | None) -> list[Judgment]:
    """That `first` is the better one, and for each that `second` is not."""
    others = [None if p is None else 1 - p for p in probabilities]
    ids = response(first).id, response(second).id
    return judgments(response(first), *probabilities, other=ids[1]) + judgments(response(second), *others, other=ids[0])


def compared(*drawn: list[Judgment], num: int = 2) -> PairingInputs:
    return judged([(response(index), []) for index in range(num)], more=[j for js in drawn for j in js])


def test_the_label_is_the_mean_probability_over_the_comparisons_of_the_two() -> None:
    given = compared(comparisons(0, 1, 0.9, 0.7, None), comparisons(0, 2, 1.0), comparisons(1, 2, 0.6), num=3)
    selection = select(given, label="preference")
    (pair,) = selection.pairs
    assert (pair.chosen_id, pair.rejected_id) == ("p0#0", "p0#2")  # means 0.87, 0.33 and 0.2
    assert pair.label == 1.0
    (pair,) = select(compared(comparisons(1, 0, 0.9, 0.7, None)), label="preference").pairs
    assert (pair.chosen_id, pair.label) == ("p0#1", pytest.approx(0.8))
    assert outcome(given, label="hard") == [1.0]


def test_parts_of_a_judgment_are_no_preference() -> None:
    member = judgments(response(0), 1.0, other="p0#1", part="member")
    assert outcome(compared(comparisons(0, 1, 0.6), member), label="preference") == [0.6]
    assert outcome(judged(scored(4, 1), more=member), label="preference") == ["no_preference"]


def test_a_pair_that_was_never_compared_has_no_preference() -> None:
    assert outcome(judged(scored(4, 1)), label="preference") == ["no_preference"]
    unreadable = compared(comparisons(0, 1, None), comparisons(0, 2, 0.9), comparisons(1, 2, 0.1), num=3)
    assert outcome(unreadable, label="preference") == ["no_preference"]


def test_a_direct_comparison_against_the_scores_gives_no_pair() -> None:
    """0 beats 1 and 2 by far and is best by its mean, but lost against 3, the worst by its mean."""
    direct = [comparisons(0, 1, 1.0), comparisons(0, 2, 1.0), comparisons(1, 2, 0.5), comparisons(3, 1, 0.0)]
    cycle = compared(*direct, comparisons(3, 2, 0.0), comparisons(3, 0, 0.6), num=4)
    assert outcome(cycle, label="hard") == [1.0]
    assert outcome(cycle, label="preference") == ["preference_disagrees"]
    even = compared(*direct, comparisons(3, 2, 0.0), comparisons(3, 0, 0.5), num=4)
    assert outcome(even, label="preference") == ["preference_disagrees"]


def rejudged(now: list[float], before: list[float | None], *, to: str = "p0") -> tuple[list[Any], list[Any]]:
    """The same responses, as two judges scored them."""
    previous: list[tuple[Response, Scores]] = [(response(i, to=to), [score]) for i, score in enumerate(before)]
    return scored(*now, to=to), previous


def test_the_label_is_how_often_two_judges_agree_over_the_shard() -> None:
    def label(*prompts: tuple[list[float], list[float | None]]) -> list[float | str]:
        both = [rejudged(now, before, to=f"p{index}") for index, (now, before) in enumerate(prompts)]
        return outcome(
            judged([r for now, _ in both for r in now], previous=[r for _, before in both for r in before]),
            label="consistency",
        )

    same, one_swap, reverse = [4.0, 3.0, 1.0], [4.0, 1.0, 3.0], [1.0, 3.0, 4.0]
    assert label((same, [8.0, 7.0, 2.0])) == [1.0]  # ranks count, not scores
    assert label((same, one_swap)) == [pytest.approx(2 / 3)]
    # One number for the shard: the mean of 1 and 2/3, which the second prompt's own ranking does not reach.
    assert label((same, same), (same, one_swap)) == [pytest.approx(5 / 6)] * 2
    # A prompt without two rankings says nothing about agreement, and its pair gets the label of the others.
    assert label((same, one_swap), (same, [2.0, 2.0, 2.0])) == [pytest.approx(2 / 3)] * 2
    assert label((same, one_swap), (same, [2.0, None, None])) == [pytest.approx(2 / 3)] * 2
    # No better than chance: neither nothing nor the reverse is worth learning.
    assert label((same, same), (same, reverse)) == ["judges_disagree"] * 2
    assert label((same, reverse)) == ["judges_disagree"]
    assert label((same, [None, None, None])) == ["consistency_not_measured"]
    assert label((same, [2.0, 2.0, 2.0])) == ["consistency_not_measured"]


def test_before_the_second_judge_every_pair_is_certain() -> None:
    assert outcome(judged(scored(4, 1)), label="consistency") == [1.0]


def test_agreement_is_measured_on_the_policys_responses_alone() -> None:
    """M_0's are easy to tell from the policy's, so they would make two judges look alike."""
    now, before = rejudged([4, 3, 1], [4, 1, 3])
    initial = scored(0, by="i")
    given = judged(now, initial=initial, previous=[*before, *initial])
    selector = pairing.build(recipe.InitialRejected(kind="initial_rejected", label="consistency"))
    (pair,) = selector.select(given).pairs
    assert (pair.rejected_id, pair.label) == ("p0#i0", pytest.approx(2 / 3))


SURE: list[tuple[Response, Scores]] = [(response(0, to="sure"), [5, 5, 5]), (response(1, to="sure"), [0, 0, 0])]
TORN: list[tuple[Response, Scores]] = [(response(0, to="torn"), [0, 5, 4]), (response(1, to="torn"), [5, 0, 3])]


def test_a_judge_that_does_not_repeat_itself_gives_no_pairs() -> None:
    assert outcome(judged(SURE), min_reliability=1.0) == [1.0]  # to reach it is enough
    assert outcome(judged(TORN), min_reliability=0.1) == ["low_reliability"]
    assert outcome(judged(TORN)) == [1.0]  # 3 against 2.67: a difference, and nothing of it would come again


def test_a_judge_is_trusted_on_the_prompts_on_which_it_repeats_itself() -> None:
    selection = select(judged([*SURE, *TORN]), min_reliability=0.5)
    assert [pair.prompt_id for pair in selection.pairs] == ["sure"]
    assert [(dropped.prompt_id, dropped.reason) for dropped in selection.dropped] == [("torn", "low_reliability")]


def test_a_judge_that_fails_on_the_shard_is_not_trusted_on_any_prompt() -> None:
    torn = [(response(i, to=f"torn{n}"), draws) for n in range(8) for i, (_, draws) in enumerate(TORN)]
    assert reliability_by_prompt(judged([*SURE, *torn]).judgments)["sure"] > 0.6
    assert outcome(judged([*SURE, *torn]), min_reliability=0.6) == ["low_reliability"] * 9


def test_what_cannot_be_measured_is_not_trusted() -> None:
    assert outcome(judged(scored(5, 0)), min_reliability=0.0) == ["reliability_not_measured"]
    assert outcome(judged(scored(5, 0))) == [1.0]


def test_distrust_does_not_hide_why_a_prompt_would_have_had_no_pair_anyway() -> None:
    tied = [(response(index, to="tied"), [3, 4]) for index in range(2)]
    selection = select(judged([*SURE, *TORN, *tied]), min_reliability=0.3)
    assert {dropped.prompt_id: dropped.reason for dropped in selection.dropped} == {
        "torn": "low_reliability",
        "tied": "tie",
    }
