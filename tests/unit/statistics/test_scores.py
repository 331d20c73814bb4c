"""Mean scores, and the reliability of a judge on data with a known reliability."""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.records import Judgment
from selfreward.statistics.reliability import reliability
from selfreward.statistics.score_table import mean_by_response, score_table
from selfreward.statistics.scores import mean_scores


def judgment(
    prompt: int, response: int, draw: int, score: float | None, unscored: str | None = None, part: str = ""
) -> Judgment:
    response_id = f"p{prompt}#{response}"
    return Judgment(
        id=f"{response_id}/{draw}",
        prompt_id=f"p{prompt}",
        response_id=response_id,
        judge="additive",
        draw=draw,
        score=score,
        unscored=unscored if score is None else None,
        text="",
        part=part,
    )


def judged(
    score: Callable[[float], float], *, prompts: int = 400, responses: int = 4, draws: int = 3, seed: int = 0
) -> list[Judgment]:
    """`score` makes a draw's score of the true quality of a response, which is standard normal."""
    rng = np.random.default_rng(seed)
    return [
        judgment(p, r, d, score(quality))
        for p in range(prompts)
        for r, quality in enumerate(rng.normal(size=responses))
        for d in range(draws)
    ]


def test_means_are_over_scored_draws_only() -> None:
    given_ = [judgment(0, 0, 0, 4.0), judgment(0, 0, 1, None, "truncated"), judgment(0, 0, 2, 1.0)]
    given_ += [judgment(0, 1, 0, None, "no_verdict"), judgment(0, 2, 0, 0.0)]
    given_ += [judgment(0, 0, 0, 1.0, part="clarity"), judgment(0, 3, 0, 5.0, part="clarity")]
    assert mean_scores(given_) == {"p0#0": 2.5, "p0#2": 0.0}
    assert mean_scores([]) == {}


@given(scores=st.lists(st.floats(0, 5), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_means_do_not_depend_on_the_order_of_the_draws(scores: list[float], seed: int) -> None:
    draws = [judgment(0, 0, draw, score) for draw, score in enumerate(scores)]
    shuffled = random.Random(seed).sample(draws, len(draws))
    assert mean_scores(draws) == mean_scores(shuffled)


def test_a_judge_that_draws_at_random_has_no_reliability() -> None:
    rng = np.random.default_rng(1)
    assert reliability(judged(lambda _: float(rng.integers(0, 6)))) == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize(("noise", "draws"), [(0.5, 3), (1.0, 3), (2.0, 3), (1.0, 8), (1.0, 2)])
def test_reliability_recovers_what_was_planted(noise: float, draws: int) -> None:
    rng = np.random.default_rng(2)
    planted = 1 / (1 + noise**2 / draws)  # between-variance 1
    found = reliability(judged(lambda quality: quality + noise * rng.normal(), draws=draws))
    assert found == pytest.approx(planted, abs=0.06)


def test_differences_between_prompts_are_not_reliability() -> None:
    """Differences between easy and hard prompts do not count as differences between responses."""
    rng = np.random.default_rng(3)
    given_ = [
        judgment(p, r, d, 5.0 * (p % 2) + 0.1 * rng.normal()) for p in range(300) for r in range(4) for d in range(3)
    ]
    assert reliability(given_) == pytest.approx(0.0, abs=0.06)


def test_missing_draws_do_not_shift_reliability() -> None:
    rng = np.random.default_rng(4)
    complete = judged(lambda quality: quality + rng.normal(), prompts=600, draws=4)
    kept = [item for item in complete if item.draw < 2 or rng.random() < 0.5]
    # J is 2, 3 or 4 with mean 1/J = (1/4) (1/2) + (1/2) (1/3) + (1/4) (1/4).
    assert reliability(kept) == pytest.approx(1 / (1 + 0.125 + 1 / 6 + 0.0625), abs=0.05)


def test_reliability_of_special_judges() -> None:
    assert reliability(judged(lambda quality: quality)) == 1.0
    assert reliability(judged(lambda _: 4.0)) == 0.0


def test_reliability_is_unknown_without_replicates() -> None:
    assert reliability([]) is None
    assert reliability(judged(lambda quality: quality, draws=1)) is None
    assert reliability(judged(lambda quality: quality, responses=1)) is None
    assert reliability([judgment(0, r, d, None, "truncated") for r in range(3) for d in range(3)]) is None


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.none() | st.floats(0, 5)), max_size=40), st.randoms()
)
def test_reliability_stays_in_its_range_and_ignores_order(
    rows: list[tuple[int, int, float | None]], rng: random.Random
) -> None:
    given_ = [judgment(p, r, draw, score, "truncated") for draw, (p, r, score) in enumerate(rows)]
    found = reliability(given_)
    assert found is None or 0 <= found <= 1
    rng.shuffle(given_)
    assert reliability(given_) == found


COMPARED = st.tuples(st.integers(0, 2), st.integers(0, 2), st.booleans(), st.none() | st.floats(0, 1))


@given(compared=st.lists(COMPARED, max_size=25))
def test_a_table_has_the_same_means_to_the_bit(compared: list[tuple[int, int, bool, float | None]]) -> None:
    judgments = [
        replace(
            judgment(0, own, draw, score, "no_choice"),
            other_id="" if other == own else f"p0#{other}",
            shown_first="" if other == own else f"p0#{own if is_first else other}",
        )
        for draw, (own, other, is_first, score) in enumerate(compared)
    ]
    assert mean_by_response(score_table(judgments)).get("p0", {}) == mean_scores(judgments)
