"""The statistics of a judge on a handful of judgments, with all numbers computed by hand."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.records import Interval, Judgment
from selfreward.statistics.intervals import mean_interval
from selfreward.statistics.judge_metrics import measure_judge
from selfreward.statistics.kendall import kendall_tau, mean_tau
from selfreward.statistics.reliability import reliability, reliability_by_prompt
from selfreward.statistics.smooth import smooth_limits

METRICS = {
    "judge_reliability", "judge_position_consistency_rate", "judge_preference_fairness", "judge_unscored_rate",
    "judge_score_mean", "judge_score_entropy_nats", "judge_top_score_rate", "judge_tie_rate",
    "judge_length_correlation", "judge_member_agreement",
}  # fmt: skip


def verdict(response: str, score: float | None, *, draw: int = 0, **fields: Any) -> Judgment:
    """`response` is "prompt#response", as are `other_id` and `shown_first`."""
    return Judgment(
        id="",
        prompt_id=response.split("#", maxsplit=1)[0],
        response_id=response,
        judge="judge",
        draw=draw,
        score=score,
        unscored="no_verdict" if score is None else None,
        text="",
        **fields,
    )


def scores(given_: dict[str, Sequence[float]], part: str = "") -> list[Judgment]:
    """One draw after the other."""
    return [
        verdict(response, score, draw=draw, part=part)
        for response, draws in given_.items()
        for draw, score in enumerate(draws)
    ]


def compared(one: str, other: str, *, first: float | None, second: float | None, draw: int = 0) -> list[Judgment]:
    """Preference for `one` when it was shown first, and second; each comparison with its mirror image."""
    made = []
    for preference, shown_first in ((first, one), (second, other)):
        mirrored = None if preference is None else 1 - preference
        made.append(verdict(one, preference, draw=draw, other_id=other, shown_first=shown_first))
        made.append(verdict(other, mirrored, draw=draw, other_id=one, shown_first=shown_first))
    return made


def metrics_of(
    judgments: Sequence[Judgment], scale: tuple[float, float] | None = (0.0, 5.0), **lengths: int
) -> tuple[dict[str, Interval], dict[str, str]]:
    metrics, not_measured = measure_judge(
        iter(judgments), response_lengths={key.replace("_", "#"): n for key, n in lengths.items()}, scale=scale, seed=0
    )
    assert metrics.keys() | not_measured.keys() == METRICS
    assert not metrics.keys() & not_measured.keys()
    intervals = {name: value for name, value in metrics.items() if isinstance(value, Interval)}
    assert all(i.low <= i.mean <= i.high for i in intervals.values())
    return intervals, not_measured


def values_of(judgments: Sequence[Judgment], scale: tuple[float, float] | None = (0.0, 5.0), **lengths: int) -> Any:
    """Return the metrics whose values do not vary over prompts, which have no interval."""
    by_id = {key.replace("_", "#"): n for key, n in lengths.items()}
    metrics, _ = measure_judge(iter(judgments), response_lengths=by_id, scale=scale, seed=0)
    return {name: value for name, value in metrics.items() if not isinstance(value, Interval)}


def test_reliability_by_hand_pooled_and_by_prompt() -> None:
    """Two draws: W is half the variance of their difference, 4 on a and 1 on b; B + W / J the variance of the means."""
    given_ = scores({"a#0": (0, 2), "a#1": (6, 4), "b#0": (1, 1), "b#1": (1, 3)})
    assert reliability(given_) == pytest.approx(1 - 2.5 / 8.5)
    # Both prompts share W = 2.5; the means of b differ less than that explains.
    assert reliability_by_prompt(given_) == {"a": pytest.approx(1 - 1.25 / 8), "b": 0.0}
    # A prompt of three weighs twice: W = (4 + 1 + 2 * 0) / 4; without noise of its own it still gets that of all.
    three = given_ + scores({"c#0": (0, 0), "c#1": (1, 1), "c#2": (2, 2)})
    assert reliability_by_prompt(three)["c"] == pytest.approx(1 - 1.25 / 2)


def test_a_prompt_with_one_draw_uses_the_pooled_noise() -> None:
    given_ = scores({"a#0": (0, 2), "a#1": (6, 4), "c#0": (0,), "c#1": (4,), "d#0": (3, 3)})
    assert reliability_by_prompt(given_) == {"a": pytest.approx(1 - 2 / 8), "c": pytest.approx(1 - 4 / 8)}
    assert reliability_by_prompt(scores({"c#0": (0,), "c#1": (4,)})) == {}


def test_a_lenient_draw_is_not_noise_even_where_a_response_lacks_it() -> None:
    full = {f"p{p}#{r}": (float(r), float(r) + 2) for p in range(20) for r in range(4)}
    assert reliability(scores(full)) == pytest.approx(1.0)
    # q#1 lacks the lenient draw; corrected for that, both responses have the same score.
    lacking = reliability_by_prompt(scores({**full, "q#0": (0, 2), "q#1": (0,)}))
    assert (lacking["q"], lacking["p0"]) == (0.0, pytest.approx(1.0))


def test_the_same_score_for_all_is_not_reliable_despite_rounding() -> None:
    same = {f"p{p}#{r}": (0.1, 0.1, 0.1) for p in range(10) for r in range(3)}
    assert reliability(scores(same)) == 0.0
    assert set(reliability_by_prompt(scores(same)).values()) == {0.0}
    shifted = dict.fromkeys(same, (0.1, 0.4, 0.7))
    assert reliability(scores(shifted)) == 0.0


def test_parts_do_not_count_towards_reliability() -> None:
    own = scores({"a#0": (0, 2), "a#1": (6, 4)})
    assert reliability(own + scores({"a#0": (5, 0), "a#1": (0, 5)}, part="clarity")) == reliability(own)
    assert reliability(scores({"a#0": (0, 2), "a#1": (6, 4)}, part="clarity")) is None


def test_reliability_of_pairs_by_hand() -> None:
    """Deviations from 0.5, minus 0.15 for the first position: (0.25, 0.35) and (0.05, -0.05); one degree of freedom."""
    given_ = compared("a#0", "a#1", first=0.9, second=0.7) + compared("b#0", "b#1", first=0.7, second=0.3)
    observed, noise = 0.3**2, 2 * (0.05**2 + 0.05**2)
    assert reliability(given_) == pytest.approx(1 - noise / observed)
    assert reliability_by_prompt(given_)["b"] == 0.0
    # Which response has the lower id, and the direction of its preference, is arbitrary.
    turned = compared("a#1", "a#0", first=1 - 0.7, second=1 - 0.9) + compared("b#9", "b#1", first=0.7, second=0.3)
    assert reliability(turned) == pytest.approx(1 - noise / observed)
    assert reliability(compared("a#0", "a#1", first=0.9, second=None) * 5) is None
    # With only one order the effect of the first position is removed: 0.65 minus 0.15 is a tie, 0.9 minus 0.15 is not.
    one_order = reliability_by_prompt(
        given_ + compared("c#0", "c#1", first=0.65, second=None) + compared("d#0", "d#1", first=0.9, second=None)
    )
    assert one_order["c"] == 0.0
    assert one_order["d"] == pytest.approx(1 - noise / 0.25**2)


def test_position_consistency_and_fairness_by_hand() -> None:
    given_ = [
        *compared("a#0", "a#1", first=0.9, second=0.6),  # the same winner
        *compared("a#0", "a#2", first=0.8, second=0.4),  # the first one, twice
        *compared("a#1", "a#2", first=0.5, second=0.5),  # a tie, twice
        *compared("b#0", "b#1", first=0.2, second=0.5),  # second, then a tie
        *compared("b#0", "b#2", first=0.7, second=None),
        *compared("c#1", "c#0", first=0.6, second=0.9, draw=0),
        *compared("c#1", "c#0", first=0.3, second=0.9, draw=1),  # with draw 0: second, then second
    ]
    found, not_measured = metrics_of(given_, scale=(0, 1))
    assert found["judge_position_consistency_rate"].mean == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert found["judge_preference_fairness"].mean == pytest.approx((-1 / 3 + 1 + 1) / 3)
    assert found["judge_unscored_rate"].mean == pytest.approx(0.25 / 3)
    assert "compares" in not_measured["judge_score_mean"]
    assert "has no members" in not_measured["judge_member_agreement"]


def test_scores_are_counted_at_the_steps_of_the_scale() -> None:
    given_ = scores({f"{p}#{r}": (score,) for p in "ab" for r, score in enumerate((5, 5, 4.5, 0))})
    found, not_measured = metrics_of(given_)
    assert found["judge_top_score_rate"].mean == 0.75
    entropy = values_of(given_)["judge_score_entropy_nats"]
    assert entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert found["judge_score_mean"].mean == pytest.approx(14.5 / 4)
    assert found["judge_tie_rate"].mean == pytest.approx(1 / 6)
    assert "twice" in not_measured["judge_reliability"]
    assert "order" in not_measured["judge_position_consistency_rate"]
    shares = scores({f"{p}#{r}": (score,) for p in "ab" for r, score in enumerate((0.95, 0.94, 1.0, 0.06))})
    tenths, _ = metrics_of(shares, scale=(0, 1))
    assert tenths["judge_top_score_rate"].mean == 0.5
    entropy = values_of(shares, scale=(0, 1))["judge_score_entropy_nats"]
    assert entropy == pytest.approx(1.5 * math.log(2))  # two, one and one
    _, without_bounds = metrics_of(shares, scale=None)
    assert "unbounded" in without_bounds["judge_score_entropy_nats"]
    with pytest.raises(ValueError, match="its scale is"):
        metrics_of(given_, scale=(0, 1))


def test_length_correlation_is_within_prompts() -> None:
    """Longer is better by one point a token within both prompts, and worse between them."""
    given_ = scores({"a#0": (4,), "a#1": (5,), "b#0": (0,), "b#1": (2,), "b#2": (1,)})
    found = values_of(given_, a_0=10, a_1=11, b_0=20, b_1=22)  # b#2 has no length
    assert found["judge_length_correlation"] == pytest.approx(1.0)
    found, _ = metrics_of(given_, a_0=10, a_1=10, b_0=20, b_1=21, b_2=21)
    assert found["judge_length_correlation"].mean == pytest.approx(1 / math.sqrt(2 / 3 * (2 + 0.5)))
    _, not_measured = metrics_of(given_, a_0=10, a_1=10, b_0=20, b_1=20)
    assert "same length" in not_measured["judge_length_correlation"]
    assert "a length" in metrics_of(given_)[1]["judge_length_correlation"]


def test_members_agree_on_rankings_and_not_on_scales() -> None:
    members = {
        "one": {"a#0": (1,), "a#1": (2,), "a#2": (3,), "b#0": (1,), "b#1": (2,)},
        "two": {"a#0": (10,), "a#1": (20,), "a#2": (30,), "b#0": (2,), "b#1": (1,)},
        "two/clarity": {"a#0": (3,), "a#1": (2,), "a#2": (1,)},
        "three": {"a#0": (7,), "a#1": (7,), "a#2": (7,)},  # has no ranking
    }
    parts = [item for part, given_ in members.items() for item in scores(given_, part=part)]
    found, not_measured = metrics_of([*parts, verdict("a#0", None), verdict("a#0", 1.0)])
    assert found["judge_unscored_rate"].mean == 0.5  # of the judge's own
    assert "two scored responses" in not_measured["judge_tie_rate"]
    assert found["judge_member_agreement"].mean == pytest.approx((1 + -1) / 2)


def test_the_same_draws_in_another_order_are_a_tie() -> None:
    """0.1 + 0.2 + 0.3 is not 0.3 + 0.2 + 0.1 in floating point."""
    found, _ = metrics_of(scores({"a#0": (0.1, 0.2, 0.3), "a#1": (0.3, 0.2, 0.1), "a#2": (0.2, 0.1, 0.3)}))
    assert found["judge_tie_rate"].mean == 1.0


@pytest.mark.parametrize("n", [40, 500])
def test_limits_of_a_plain_mean_are_those_of_the_mean_interval(n: int) -> None:
    x_P = np.random.default_rng(0).lognormal(size=n)
    low, high, method = smooth_limits(x_P[:, None], lambda mean: (mean[:, 0], np.ones_like(mean)), level=0.95, seed=0)
    expected = mean_interval(x_P)
    assert method == expected.method
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=0.05 * (expected.high - expected.low))


def test_no_judgments_give_reasons_in_words() -> None:
    for given_ in ([], [verdict("a#0", None), verdict("a#1", math.inf)]):
        found, not_measured = metrics_of(given_)
        assert set(found) == ({"judge_unscored_rate"} if given_ else set())
        assert all(reason[0].islower() or reason[0].isdigit() for reason in not_measured.values())
    assert found["judge_unscored_rate"].mean == 1.0


def test_kendall_tau_counts_pairs_and_ties() -> None:
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1.0
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1.0
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)
    assert kendall_tau([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(5 * 6))
    assert kendall_tau([1, 1, 1], [1, 2, 3]) is None
    assert kendall_tau([1], [1]) is None
    with pytest.raises(ValueError, match="equal lengths"):
        kendall_tau([1, 2], [1, 2, 3])


def test_mean_tau_is_over_responses_that_both_judges_scored() -> None:
    now = scores({"a#0": (0, 2), "a#1": (2, 2), "a#2": (5, 5), "b#0": (1,), "b#1": (2,), "c#0": (1,), "c#1": (1,)})
    before = scores({"a#0": (3,), "a#1": (4,), "a#9": (0,), "b#0": (2,), "b#1": (1,), "c#0": (1,), "c#1": (2,)})
    found = mean_tau(now, before, seed=0)
    assert found is not None
    assert (found.mean, found.num_units) == (0.0, 2)  # 1 on a, -1 on b, no ranking on c
    assert mean_tau(now, [], seed=0) is None


JUDGED = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 3), st.integers(0, 2),
        st.none() | st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
        st.sampled_from(["", "", "", "one", "two"]),
    ),
    max_size=60,
)  # fmt: skip


def made(rows: list[tuple[int, int, int, float | None, str]], *, compares: bool) -> list[Judgment]:
    if not compares:
        return [verdict(f"p{p}#{r}", score, draw=draw, part=part) for p, r, draw, score, part in rows]
    return [
        judgment
        for p, r, draw, score, _ in rows
        for judgment in compared(f"p{p}#{r}", f"p{p}#{(r + 1) % 4}", first=score, second=score and 1.0, draw=draw)
    ]


def test_sums_of_many_scores_do_not_depend_on_their_order() -> None:
    rng = random.Random(0)
    judgments = [verdict(f"p{p}#{r}", rng.random(), draw=d) for p in range(9) for r in range(4) for d in range(5)]
    before = measure_judge(judgments, response_lengths={}, scale=(0, 1), seed=0)
    assert measure_judge(judgments[::-1], response_lengths={}, scale=(0, 1), seed=0) == before


@settings(max_examples=40)
@given(rows=JUDGED, compares=st.booleans(), rng=st.randoms())
def test_the_order_of_judgments_changes_nothing(
    rows: list[tuple[int, int, int, float | None, str]], compares: bool, rng: random.Random
) -> None:
    judgments = made(rows, compares=compares)
    lengths = {f"p{p}#{r}": 7 * p + 3 * r * r for p in range(4) for r in range(4)}
    before = measure_judge(judgments, response_lengths=lengths, scale=(0, 1), seed=1)
    by_prompt = reliability_by_prompt(judgments)
    assert all(0 <= r <= 1 for r in by_prompt.values())
    rng.shuffle(judgments)
    assert measure_judge(judgments, response_lengths=lengths, scale=(0, 1), seed=1) == before
    assert reliability_by_prompt(judgments) == by_prompt


@settings(max_examples=40)
@given(rows=JUDGED, compares=st.booleans(), extra=st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_unscored_judgments_change_their_own_rate_alone(
    rows: list[tuple[int, int, int, float | None, str]], compares: bool, extra: list[int]
) -> None:
    judgments = made(rows, compares=compares)
    more = judgments + [verdict(f"p{p}#0", None, draw=9) for p in extra]
    more += [replace(verdict(f"p{p}#1", None, draw=9), part="one") for p in extra]
    before, reasons = measure_judge(judgments, response_lengths={}, scale=(0, 1), seed=1)
    after, reasons_after = measure_judge(more, response_lengths={}, scale=(0, 1), seed=1)
    rate = after.pop("judge_unscored_rate")
    assert isinstance(rate, Interval) and rate.mean > 0
    before.pop("judge_unscored_rate", None), reasons.pop("judge_unscored_rate", None)
    assert (after, reasons_after) == (before, reasons)
    assert reliability_by_prompt(more) == reliability_by_prompt(judgments)


def test_an_interval_clipped_to_0_is_no_interval() -> None:
    """By chance the draws of three prompts differ so much that the complete interval lies below 0."""
    table = {"a#0": (1, 2), "a#1": (3, 1), "b#0": (1, 0), "b#1": (0, 1), "c#0": (1, 1), "c#1": (3, 0)}
    measured, _ = measure_judge(scores(table), response_lengths={}, scale=None, seed=0)
    assert measured["judge_reliability"] == 0.0
