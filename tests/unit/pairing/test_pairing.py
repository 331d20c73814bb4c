"""Selection of pairs: the strategies, and the rules for all of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from cases.pairing import Scores, judged, response, scored

from selfreward import pairing, recipe
from selfreward.pairing import CandidatePair, PromptCandidates, Selector
from selfreward.records import Response, Selection
from selfreward.tables import INITIAL_RESPONSES, PREVIOUS_JUDGMENTS, Table

KINDS: dict[str, Any] = {
    "best_vs_worst": recipe.BestVsWorst,
    "length_controlled": recipe.LengthControlled,
    "top_k": recipe.TopK,
    "initial_rejected": recipe.InitialRejected,
}


def select(
    policy: Sequence[tuple[Response, Scores]],
    *,
    kind: str = "best_vs_worst",
    initial: Sequence[tuple[Response, Scores]] = (),
    **settings_: Any,
) -> Selection:
    return pairing.build(KINDS[kind](kind=kind, **settings_)).select(judged(policy, initial=initial))


def reason(selection: Selection) -> str:
    assert not selection.pairs
    (dropped,) = selection.dropped
    assert dropped.prompt_id == "p0"
    return dropped.reason


def all_ends(selection: Selection) -> list[tuple[str, str]]:
    assert not selection.dropped
    return [(pair.chosen_id, pair.rejected_id) for pair in selection.pairs]


def ends(selection: Selection) -> tuple[str, str]:
    (only,) = all_ends(selection)
    return only


def test_best_against_worst_mean_with_the_sampled_tokens_untouched() -> None:
    policy = [(response(0), [3, 4]), (response(1), [5, 5]), (response(2), [0, 1, None]), (response(3), [None])]
    selection = select(policy)
    (pair,) = selection.pairs
    best, worst = policy[1][0], policy[2][0]
    assert (pair.chosen_id, pair.rejected_id) == (best.id, worst.id)
    assert (pair.chosen_token_ids, pair.rejected_token_ids) == (best.token_ids, worst.token_ids)
    assert (pair.chosen_text, pair.rejected_text) == (best.text, worst.text)
    assert pair.prompt_token_ids == best.prompt_token_ids
    assert (pair.chosen_score, pair.rejected_score, pair.margin) == (5.0, 0.5, 4.5)
    assert (pair.kind, pair.weight, pair.label, pair.prompt_id) == ("response", 1.0, 1.0, "p0")
    assert pair.id == "p0#pair"


@pytest.mark.parametrize("kind", KINDS)
def test_reasons_why_a_prompt_gives_no_pair(kind: str) -> None:
    def why(*policy: tuple[Response, Scores], **settings_: Any) -> str:
        return reason(select(policy, kind=kind, **settings_))

    assert why() == "no_responses"
    assert why((response(0), [4]), (response(1), [None, None])) == "too_few_scored"
    assert why((response(0), [4]), (response(1), [1]), min_scored=3) == "too_few_scored"
    assert why((response(0), [4, 2]), (response(1), [3]), (response(2), [3, None])) == "tie"
    assert why((response(0, text="sea"), [4]), (response(1, text=" sea\n"), [1])) == "identical_text"
    assert why((response(0, text="", tokens=1), [4]), (response(1, text="", tokens=1), [1])) == "identical_text"
    assert why((response(0, truncated=True), [4]), (response(1), [1])) == "truncated_chosen"
    assert why((response(0, truncated=True), [4]), (response(1, truncated=True), [1])) == "truncated_chosen"
    assert why((response(0), [4]), (response(1), [1]), min_margin=3.0) == "small_margin"


def test_same_tokens_are_identical_regardless_of_the_text() -> None:
    one, other = response(0), response(1)
    assert reason(select([(one, [4]), (replace(other, token_ids=one.token_ids), [1])])) == "identical_text"


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_response_is_never_chosen_but_may_be_rejected(kind: str) -> None:
    policy = [(response(0, truncated=True), [5]), (response(1), [4]), (response(2, truncated=True), [1])]
    sharp = {"rho": 0.0} if kind == "length_controlled" else {}
    assert ends(select(policy, kind=kind, **sharp)) == ("p0#1", "p0#2")
    assert ends(select(policy, kind=kind, allow_truncated_chosen=True))[0] == "p0#0"


def test_a_margin_equal_to_the_minimum_is_too_small_regardless_of_rounding() -> None:
    thirds = [(response(0), [5, 5, 4]), (response(1), [4, 4, 3])]
    assert 14 / 3 - 11 / 3 > 1  # by rounding
    assert reason(select(thirds, min_margin=1.0)) == "small_margin"
    assert ends(select(thirds, min_margin=0.999)) == ("p0#0", "p0#1")


def test_the_length_control_formula() -> None:
    """Scores 5 to 0 and rho 0.2: chosen from [4, 5], rejected from [0, 1]."""
    policy = [
        (response(0, tokens=9), [5]),
        (response(1, tokens=4), [4]),  # shortest in the upper band
        (response(2, tokens=2), [3.9]),  # shorter, but below the band
        (response(3, tokens=40), [1.1]),  # longer, but above the lower band
        (response(4, tokens=30), [1]),  # longest in the lower band
        (response(5, tokens=5), [0]),
    ]
    assert ends(select(policy, kind="length_controlled", rho=0.2)) == ("p0#1", "p0#4")
    assert ends(select(policy, kind="length_controlled", rho=0.0)) == ("p0#0", "p0#5")
    assert ends(select(policy, kind="length_controlled", rho=0.4)) == ("p0#2", "p0#3")


def test_equal_lengths_go_to_the_clearer_score() -> None:
    assert ends(select(scored(4.5, 5.0, 0.0, 0.5), kind="length_controlled", rho=0.35)) == ("p0#1", "p0#2")


def test_scores_that_differ_by_rounding_are_never_a_pair_without_a_margin() -> None:
    """The smallest numbers there are: 0.49 times two of them is one of them, so both bands contain the middle
    response."""
    smallest = 5e-324
    policy = [(response(0), [2 * smallest]), (response(1, tokens=2), [smallest]), (response(2, tokens=1), [0.0])]
    assert reason(select(policy, kind="length_controlled", rho=0.49)) == "tie"


@pytest.mark.parametrize("kind", KINDS)
def test_ties_go_to_the_lower_id(kind: str) -> None:
    for policy in (scored(1, 4, 4, 1), scored(1, 4, 4, 1)[::-1]):
        assert all_ends(select(policy, kind=kind))[0] == ("p0#1", "p0#0")


def test_top_k_pairs_outside_in_until_the_lists_meet() -> None:
    policy = scored(2, 5, 0, 4, 3, 1)
    outside_in = [("p0#1", "p0#2"), ("p0#3", "p0#5"), ("p0#4", "p0#0")]
    for k in (1, 2, 3, 9):  # beyond three, best and worst would only change sides
        assert all_ends(select(policy, kind="top_k", k=k)) == outside_in[:k]
    assert [pair.id for pair in select(policy, kind="top_k", k=3).pairs] == ["p0#pair", "p0#pair-2", "p0#pair-3"]
    # In the middle of an odd number, or among equals, one is left over.
    assert all_ends(select(scored(5, 3, 1), kind="top_k", k=2)) == [("p0#0", "p0#2")]
    assert all_ends(select(scored(5, 3, 3, 1), kind="top_k", k=2)) == [("p0#0", "p0#3")]


def test_top_k_ids_do_not_depend_on_refused_pairs() -> None:
    same = [(response(0, text="sea"), [5]), (response(1), [4]), (response(2), [1]), (response(3, text="sea"), [0])]
    selection = select(same, kind="top_k", k=2)
    assert all_ends(selection) == [("p0#1", "p0#2")]
    assert selection.pairs[0].id == "p0#pair-2"
    assert all_ends(select(scored(5, 4, 3, 0), kind="top_k", k=2, min_margin=1.0)) == [("p0#0", "p0#3")]


def test_one_text_is_not_chosen_in_one_pair_and_rejected_in_another() -> None:
    policy = [(response(0, text="sea"), [5]), (response(1), [4]), (response(2, text="sea"), [1]), (response(3), [0])]
    assert all_ends(select(policy, kind="top_k", k=2)) == [("p0#0", "p0#3")]


def test_the_initial_models_worst_response_is_rejected_if_it_is_worse() -> None:
    def against(*initial: float, **settings_: Any) -> tuple[str, str]:
        return ends(select(scored(5, 2), kind="initial_rejected", initial=scored(*initial, by="i"), **settings_))

    assert against(3, 1) == ("p0#0", "p0#i1")
    assert against(3, 2) == ("p0#0", "p0#1")  # at a tie the policy's own
    assert against(6, 9) == ("p0#0", "p0#1")  # M_0's are never chosen
    assert against() == ("p0#0", "p0#1")  # the first iteration


def test_the_initial_model_gives_a_pair_where_the_policys_own_responses_tie() -> None:
    tied, unscored = scored(4, 4), [(response(1, by="i"), [None])]
    assert ends(select(tied, kind="initial_rejected", initial=scored(1, by="i"))) == ("p0#0", "p0#i0")
    assert reason(select(tied, kind="initial_rejected", initial=scored(4, by="i"))) == "tie"
    assert reason(select(tied, kind="initial_rejected", initial=scored(5, by="i"))) == "tie"
    assert reason(select(tied, kind="initial_rejected", initial=unscored)) == "tie"
    # They do not make up for responses of the policy's that have no score.
    assert reason(select(scored(4), kind="initial_rejected", initial=scored(1, by="i"))) == "too_few_scored"


def test_a_weight_by_margin_is_the_difference_of_the_scores() -> None:
    (pair,) = select(scored(0.75, 0.5, 0.25), weight="margin").pairs
    assert (pair.weight, pair.margin, pair.label) == (0.5, 0.5, 1.0)


def test_a_winner_below_the_minimum_score_is_not_chosen() -> None:
    assert ends(select(scored(0.5, 0.25), min_chosen_score=0.5)) == ("p0#0", "p0#1")
    assert reason(select(scored(0.375, 0.25), min_chosen_score=0.5)) == "low_chosen_score"
    assert reason(select(scored(0.375, 0.375), min_chosen_score=0.5)) == "tie"


def test_a_selector_reads_only_the_tables_it_needs() -> None:
    def read(kind: str, **settings_: Any) -> tuple[Table[Any], ...]:
        return pairing.build(KINDS[kind](kind=kind, **settings_)).reads

    assert all(read(kind) == () for kind in ("best_vs_worst", "length_controlled", "top_k"))
    assert read("top_k", label="preference") == ()
    assert read("top_k", label="consistency") == (PREVIOUS_JUDGMENTS,)
    assert read("initial_rejected") == (INITIAL_RESPONSES,)
    assert read("initial_rejected", weight="consistency") == (INITIAL_RESPONSES, PREVIOUS_JUDGMENTS)


def test_a_plan_has_the_maximum_number_of_pairs_per_prompt() -> None:
    top_k = pairing.build(recipe.TopK(kind="top_k", k=3))
    assert [top_k.max_pairs(num_responses) for num_responses in (2, 5, 9)] == [1, 2, 3]
    assert pairing.build(recipe.BestVsWorst(kind="best_vs_worst")).max_pairs(9) == 1


def test_a_response_to_another_prompt_is_refused() -> None:
    selector = pairing.build(recipe.BestVsWorst(kind="best_vs_worst"))
    strange = replace(judged(scored(4, 1)), prompts=[])
    with pytest.raises(ValueError, match="p0"):
        selector.select(strange)
    with pytest.raises(ValueError, match="p0"):
        selector.select(replace(strange, responses=[], initial_responses=strange.responses))
    other_prompt_tokens = replace(response(1), prompt_token_ids=(1,))
    with pytest.raises(ValueError, match="different prompt tokens"):
        select([(response(0), [4]), (other_prompt_tokens, [1])])
    with pytest.raises(ValueError, match=r"p0#0.*must differ"):
        select(scored(5, 2), kind="initial_rejected", initial=scored(1))


def test_a_user_defined_strategy_is_a_function_under_the_same_rules() -> None:
    def nearest_above_the_worst(candidates: PromptCandidates) -> list[CandidatePair]:
        worst, *_ = sorted(candidates.scored, key=lambda candidate: candidate.score)
        nearest, *_ = sorted(candidates.choosable, key=lambda candidate: candidate.score)
        return [CandidatePair(nearest, worst)]

    selection = Selector(recipe.Pairing(), nearest_above_the_worst).select(judged(scored(5, 0, 3)))
    assert ends(selection) == ("p0#2", "p0#1")
    assert reason(Selector(recipe.Pairing(), lambda candidates: []).select(judged(scored(5, 0)))) == "nothing_proposed"
    truncated = [(response(0, truncated=True), [5]), *scored(1, 3, 0)[1:]]
    first_of_all = Selector(recipe.Pairing(), lambda of: [CandidatePair(of.scored[0], of.scored[2])])
    with pytest.raises(ValueError, match=r"p0#0.*choosable"):
        first_of_all.select(judged(truncated))
