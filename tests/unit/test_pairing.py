"""Which responses become a pair: the two strategies, the rules, and properties over random input."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward import pairing, recipe
from selfreward.pairing import DropReason
from selfreward.records import Judgment, Message, Prompt, Response, Selection

PROMPT = Prompt(id="p0", messages=(Message("user", "Name a sea."),))


def response(
    index: int, *, tokens: int = 3, text: str | None = None, cut_off: bool = False, prompt: str = "p0"
) -> Response:
    return Response(
        id=f"{prompt}#{index}",
        prompt_id=prompt,
        prompt_token_ids=(7, 8),
        token_ids=(*range(100 * index, 100 * index + tokens - 1), 2),
        token_logprobs=None,
        text=f"response {index}" if text is None else text,
        finish_reason="length" if cut_off else "stop",
        seed=0,
        checkpoint_id="m",
    )


def judgments(of: Response, *scores: float | None) -> list[Judgment]:
    return [
        Judgment(
            id=f"{of.id}/additive/{draw}",
            prompt_id=of.prompt_id,
            response_id=of.id,
            judge="additive",
            draw=draw,
            score=score,
            unscored="no_verdict" if score is None else None,
            text="",
        )
        for draw, score in enumerate(scores)
    ]


def select(
    scored: Sequence[tuple[Response, Sequence[float | None]]], *, kind: str = "best_vs_worst", **settings_: Any
) -> Selection:
    section = {"best_vs_worst": recipe.BestVsWorst, "length_controlled": recipe.LengthControlled}[kind]
    selector = pairing.build(section(kind=kind, **settings_))
    return selector.select(
        [PROMPT], [item for item, _ in scored], [j for item, s in scored for j in judgments(item, *s)]
    )


def reason(selection: Selection) -> str:
    assert not selection.pairs
    (dropped,) = selection.dropped
    assert dropped.prompt_id == "p0"
    return dropped.reason


def ends(selection: Selection) -> tuple[str, str]:
    assert not selection.dropped
    (pair,) = selection.pairs
    return pair.chosen_id, pair.rejected_id


def test_best_against_worst_mean_with_the_sampled_tokens_untouched() -> None:
    scored = [(response(0), [3, 4]), (response(1), [5, 5]), (response(2), [0, 1, None]), (response(3), [None])]
    selection = select(scored)
    (pair,) = selection.pairs
    best, worst = scored[1][0], scored[2][0]
    assert (pair.chosen_id, pair.rejected_id) == (best.id, worst.id)
    assert (pair.chosen_token_ids, pair.rejected_token_ids) == (best.token_ids, worst.token_ids)
    assert (pair.chosen_text, pair.rejected_text) == (best.text, worst.text)
    assert pair.prompt_token_ids == best.prompt_token_ids
    assert (pair.chosen_score, pair.rejected_score, pair.margin) == (5.0, 0.5, 4.5)
    assert (pair.kind, pair.weight, pair.prompt_id) == ("response", 1.0, "p0")
    assert pair.id.startswith("p0#")


@pytest.mark.parametrize("kind", ["best_vs_worst", "length_controlled"])
def test_why_a_prompt_gives_no_pair(kind: str) -> None:
    def why(*scored: tuple[Response, list[float | None]], **settings_: Any) -> str:
        return reason(select(scored, kind=kind, **settings_))

    assert why() == "no_responses"
    assert why((response(0), [4]), (response(1), [None, None])) == "too_few_scored"
    assert why((response(0), [4]), (response(1), [1]), min_scored=3) == "too_few_scored"
    assert why((response(0), [4, 2]), (response(1), [3]), (response(2), [3, None])) == "tie"
    assert why((response(0, text="sea"), [4]), (response(1, text=" sea\n"), [1])) == "identical_text"
    assert why((response(0, text="", tokens=1), [4]), (response(1, text="", tokens=1), [1])) == "identical_text"
    assert why((response(0, cut_off=True), [4]), (response(1), [1])) == "cut_off_chosen"
    assert why((response(0, cut_off=True), [4]), (response(1, cut_off=True), [1])) == "cut_off_chosen"


def test_same_tokens_are_identical_whatever_the_text_says() -> None:
    one, other = response(0), response(1)
    assert reason(select([(one, [4]), (replace(other, token_ids=one.token_ids), [1])])) == "identical_text"


@pytest.mark.parametrize("kind", ["best_vs_worst", "length_controlled"])
def test_a_cut_off_response_is_passed_over_as_chosen_but_may_be_rejected(kind: str) -> None:
    scored = [(response(0, cut_off=True), [5]), (response(1), [4]), (response(2, cut_off=True), [1])]
    assert ends(select(scored, kind=kind, **({"rho": 0.0} if kind == "length_controlled" else {}))) == ("p0#1", "p0#2")
    assert ends(select(scored, kind=kind, allow_cut_off_chosen=True))[0] == "p0#0"


def test_the_length_control_formula() -> None:
    """Scores 5 to 0 and rho 0.2: chosen from [4, 5], rejected from [0, 1]."""
    scored = [
        (response(0, tokens=9), [5]),
        (response(1, tokens=4), [4]),  # shortest in the upper band
        (response(2, tokens=2), [3.9]),  # shorter, but below the band
        (response(3, tokens=40), [1.1]),  # longer, but above the lower band
        (response(4, tokens=30), [1]),  # longest in the lower band
        (response(5, tokens=5), [0]),
    ]
    assert ends(select(scored, kind="length_controlled", rho=0.2)) == ("p0#1", "p0#4")
    assert ends(select(scored, kind="length_controlled", rho=0.0)) == ("p0#0", "p0#5")
    assert ends(select(scored, kind="length_controlled", rho=0.4)) == ("p0#2", "p0#3")


def test_equal_lengths_go_to_the_clearer_score() -> None:
    scored = [(response(i), [score]) for i, score in enumerate([4.5, 5.0, 0.0, 0.5])]
    assert ends(select(scored, kind="length_controlled", rho=0.35)) == ("p0#1", "p0#2")


def test_scores_that_differ_by_rounding_are_never_a_pair_without_a_margin() -> None:
    """The smallest numbers there are: 0.49 times two of them is one of them, so both bands hold the middle response."""
    smallest = 5e-324
    scored = [(response(0), [2 * smallest]), (response(1, tokens=2), [smallest]), (response(2, tokens=1), [0.0])]
    assert reason(select(scored, kind="length_controlled", rho=0.49)) == "tie"


def test_ties_go_to_the_lower_id() -> None:
    tied = [(response(i), [score]) for i, score in enumerate([1.0, 4.0, 4.0, 1.0])]
    for scored in (tied, tied[::-1]):
        assert ends(select(scored)) == ("p0#1", "p0#0")
        assert ends(select(scored, kind="length_controlled")) == ("p0#1", "p0#0")


def test_a_response_to_another_prompt_is_refused() -> None:
    selector = pairing.build(recipe.BestVsWorst(kind="best_vs_worst"))
    with pytest.raises(ValueError, match="p9"):
        selector.select([PROMPT], [response(0, prompt="p9")], [])
    other_prompt_tokens = replace(response(1), prompt_token_ids=(1,))
    with pytest.raises(ValueError, match="different prompt tokens"):
        select([(response(0), [4]), (other_prompt_tokens, [1])])


_SECTIONS = st.builds(
    recipe.BestVsWorst, kind=st.just("best_vs_worst"), min_scored=st.integers(2, 4), allow_cut_off_chosen=st.booleans()
) | st.builds(
    recipe.LengthControlled,
    kind=st.just("length_controlled"),
    min_scored=st.integers(2, 4),
    allow_cut_off_chosen=st.booleans(),
    rho=st.floats(0, 0.499),
)
_SCORES = st.none() | st.integers(0, 5).map(float) | st.floats(0, 5) | st.sampled_from([3.0, 3.0000000000000004])
_RESPONSES = st.tuples(
    st.integers(1, 6), st.booleans(), st.sampled_from(["", "a", "b", "c", None]), st.lists(_SCORES, max_size=4)
)


@settings(max_examples=300, deadline=None)
@given(section=_SECTIONS, groups=st.lists(st.lists(_RESPONSES, max_size=6), max_size=4), rng=st.randoms())
def test_whatever_comes_in(
    section: Any, groups: list[list[tuple[int, bool, str | None, list[float | None]]]], rng: random.Random
) -> None:
    prompts = [Prompt(id=f"p{p}", messages=PROMPT.messages) for p in range(len(groups))]
    responses, drawn = [], []
    for p, group in enumerate(groups):
        for index, (tokens, cut_off, text, scores) in enumerate(group):
            item = response(index, tokens=tokens, cut_off=cut_off, text=text, prompt=f"p{p}")
            responses.append(item)
            drawn += judgments(item, *scores)
    selector = pairing.build(section)
    selection = selector.select(prompts, responses, drawn)

    # Counts add up: every prompt is in exactly one of the two, in the order of the prompts.
    assert sorted([x.prompt_id for x in (*selection.pairs, *selection.dropped)]) == [prompt.id for prompt in prompts]
    assert {item.reason for item in selection.dropped} <= {str(r) for r in DropReason}
    by_id = {item.id: item for item in responses}
    scored = {
        j.response_id: [x.score for x in drawn if x.response_id == j.response_id and x.score is not None] for j in drawn
    }
    for pair in selection.pairs:
        chosen, rejected = by_id[pair.chosen_id], by_id[pair.rejected_id]
        assert scored[chosen.id] and scored[rejected.id]
        means = [sum(scored[item.id]) / len(scored[item.id]) for item in (chosen, rejected)]
        assert [pair.chosen_score, pair.rejected_score] == pytest.approx(means)
        assert pair.margin == pair.chosen_score - pair.rejected_score > 0
        assert chosen.prompt_id == rejected.prompt_id == pair.prompt_id
        assert chosen.text.strip() != rejected.text.strip() and chosen.token_ids != rejected.token_ids
        assert section.allow_cut_off_chosen or chosen.finish_reason == "stop"
        assert sum(
            bool(scored[item.id]) for item in responses if item.prompt_id == pair.prompt_id if item.id in scored
        ) >= (section.min_scored)
    # The order of responses and judgments does not matter, and neither does that of prompts but for the order of pairs.
    for shuffled in (prompts, responses, drawn):
        rng.shuffle(shuffled)  # type: ignore[arg-type]
    again = selector.select(prompts, responses, drawn)
    assert set(again.pairs) == set(selection.pairs) and set(again.dropped) == set(selection.dropped)


@given(score=st.floats(0, 5), lengths=st.lists(st.integers(1, 9), min_size=2, max_size=6), rho=st.floats(0, 0.499))
def test_a_tie_never_becomes_a_pair(score: float, lengths: list[int], rho: float) -> None:
    scored = [(response(i, tokens=tokens), [score]) for i, tokens in enumerate(lengths)]
    assert reason(select(scored)) == "tie"
    assert reason(select(scored, kind="length_controlled", rho=rho)) == "tie"
