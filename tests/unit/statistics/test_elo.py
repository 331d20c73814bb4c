"""Elo scores of judgments: a known answer, planted strengths, a planted position bias, and invariants."""

import math
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfreward.records import Battle
from selfreward.statistics.elo import PRIOR_PRECISION, elo, position_weights

EVEN = (0.5, 0.5)
ROUNDING = 3e-6


def battle(first: str, second: str, winner: str = "", *, unscored: str | None = None) -> Battle:
    return Battle(
        id=f"{first}~{second}",
        prompt_id="p",
        response_id="r",
        first_id=first,
        second_id=second,
        winner_id=winner,
        unscored=unscored,
        text="",
    )


def wins(winner: str, loser: str, num: int) -> list[Battle]:
    """Equally many in both positions."""
    return [battle(winner, loser, winner), battle(loser, winner, winner)] * (num // 2)


def simulated(
    strengths: Sequence[float], *, bias: float, rounds: int, seed: int, one_order: bool = False
) -> list[Battle]:
    """P(first wins) = sigmoid(e_first - e_second + bias)."""
    generator = random.Random(seed)
    names = [f"j{index}" for index in range(len(strengths))]
    compared = []
    for m, first in enumerate(names):
        for n, second in enumerate(names):
            for _ in range(rounds if m != n and not (one_order and m > n) else 0):
                first_wins = generator.random() < 1 / (1 + math.exp(strengths[n] - strengths[m] - bias))
                compared.append(battle(first, second, first if first_wins else second))
    return compared


def fitted(battles: Sequence[Battle], weights: tuple[float, float]) -> list[float]:
    return list(elo(battles, weights=weights).values())


def test_two_judgments_have_a_known_answer() -> None:
    """Odds of 3 to 1: the difference is log 3, minus the shrinkage by the prior, which vanishes with more battles."""
    scores = elo(wins("a", "b", 3000) + wins("b", "a", 1000), weights=EVEN)
    assert scores["a"] - scores["b"] == pytest.approx(math.log(3), abs=1e-4)
    # One win in each position counts 1 in total: (1 - sigmoid(d)) = PRIOR_PRECISION * d / 2 at the maximum.
    scores = elo(wins("a", "b", 2), weights=EVEN)
    difference = scores["a"] - scores["b"]
    assert 1 / (1 + math.exp(difference)) == pytest.approx(PRIOR_PRECISION * difference / 2, abs=1e-6)
    assert scores["a"] == pytest.approx(-scores["b"], abs=ROUNDING)


def test_planted_strengths_are_found_again() -> None:
    planted = [-1.2, -0.5, 0.0, 0.4, 1.3]
    assert fitted(simulated(planted, bias=0.0, rounds=2000, seed=1), EVEN) == pytest.approx(planted, abs=0.1)


@pytest.mark.parametrize("bias", [-1.5, 1.5])
def test_the_weights_cancel_a_position_bias(bias: float) -> None:
    planted = [-0.7, -0.2, 0.0, 0.2, 0.7]
    compared = simulated(planted, bias=bias, rounds=3000, seed=2)
    weighted, plain = fitted(compared, position_weights(compared)), fitted(compared, EVEN)
    assert weighted == pytest.approx(planted, abs=0.1)
    # Wins by position are noise that flattens the differences to 4 sigmoid'(1.5), 0.6 of them.
    assert max(plain) < 0.5 and min(plain) > -0.5


@pytest.mark.parametrize("bias", [-1.5, 1.5])
def test_the_weights_cancel_a_position_bias_with_one_order_per_pair(bias: float) -> None:
    planted = [0.3, -0.3, 0.0, -0.3, 0.3]  # uncorrelated with the position
    compared = simulated(planted, bias=bias, rounds=4000, seed=3, one_order=True)
    assert fitted(compared, position_weights(compared)) == pytest.approx(planted, abs=0.1)
    assert abs(fitted(compared, EVEN)[0] - planted[0]) > 0.5  # a judgment always shown first gained or lost by it


def test_the_weights_by_hand() -> None:
    compared = [battle("a", "b", "a"), battle("b", "a", "b"), battle("a", "c", "a"), battle("c", "a", "a")]
    assert position_weights([*compared, battle("b", "c"), battle("c", "b", unscored="no_verdict")]) == (0.25, 0.75)
    assert position_weights([battle("a", "b")]) == EVEN
    assert position_weights([]) == EVEN


@pytest.mark.parametrize("always_first", [True, False])
def test_a_meta_judge_that_always_names_one_position_gives_equal_scores(always_first: bool) -> None:
    names = "abcd"
    compared = [battle(m, n, m if always_first else n) for m in names for n in names if m != n]
    compared.append(
        battle("a", "b", "a" if always_first else "b")
    )  # repeated, so that even weights would give a winner
    assert elo(compared, weights=EVEN)["a"] != elo(compared, weights=EVEN)["b"]
    assert set(elo(compared, weights=position_weights(compared)).values()) == {0.0}


def test_ties_and_unscored_battles_count_nothing() -> None:
    compared = [battle("a", "b", "a"), battle("b", "a", "a")]
    more = [battle("b", "c"), battle("c", "b"), battle("a", "b", unscored="truncated"), battle("b", "a")]
    scores = elo([*compared, *more], weights=EVEN)
    assert scores.pop("c") == 0.0
    assert scores == elo(compared, weights=EVEN)


@pytest.mark.parametrize("num", [1, 1000])
def test_winning_every_battle_gives_a_finite_score_in_order(num: int) -> None:
    compared = [b for m, n in ("ab", "ac", "ad", "bc", "bd", "cd") for b in wins(m, n, 2 * num)]
    scores = fitted(compared, EVEN)
    assert scores == sorted(scores, reverse=True) and scores[0] < 20
    assert scores[:2] == pytest.approx([-scores[3], -scores[2]], abs=ROUNDING)


def test_battles_that_do_not_connect_all_judgments() -> None:
    scores = elo(wins("a", "b", 4) + wins("c", "d", 4), weights=EVEN)
    assert scores["a"] == scores["c"] > 0 > scores["b"] == scores["d"]


def test_lopsided_battles_on_which_full_steps_would_run_away() -> None:
    counts = {
        "ac": 1000, "ae": 100, "af": 1, "be": 5, "bf": 100, "ca": 5, "cb": 5, "cd": 1000, "db": 100, "dc": 1, "ea": 1,
        "fa": 1, "fc": 5, "fe": 1,
    }  # fmt: skip
    compared = [battle(winner, loser, winner) for (winner, loser), num in counts.items() for _ in range(num)]
    scores = elo(compared, weights=EVEN)
    for name, score in scores.items():
        # At the maximum, wins minus expected wins equal the gradient of the prior.
        surplus = sum(
            num * ((name == m) - (name in (m, n)) / (1 + math.exp(scores[n if name == m else m] - scores[name])))
            for (m, n), num in counts.items()
        )
        assert surplus / 2 == pytest.approx(PRIOR_PRECISION * score, abs=1e-2)


def test_cyclic_wins_leave_no_margin() -> None:
    """Each wins as often, in the first position against the next and in the second against the one after."""
    compared = [battle(m, n, m) for m, n in ("ab", "bc", "cd", "de", "ea")]
    compared += [battle(n, m, m) for m, n in ("ac", "bd", "ce", "da", "eb")]
    assert set(elo(compared, weights=(0.3, 0.7)).values()) == {0.0}


NAMES = "abcde"
BATTLES = st.lists(
    st.tuples(st.permutations(NAMES).map(lambda p: p[:2]), st.sampled_from([0, 1, None])).map(
        lambda drawn: battle(*drawn[0], "" if drawn[1] is None else drawn[0][drawn[1]])
    ),
    min_size=1,
    max_size=30,
)
WEIGHTS = st.floats(0, 1).map(lambda share: (share, 1 - share))


@given(BATTLES, st.data())
def test_the_order_of_the_battles_changes_nothing(compared: list[Battle], data: st.DataObject) -> None:
    mixed = data.draw(st.permutations(compared))
    assert position_weights(mixed) == position_weights(compared)
    weights = position_weights(compared)
    assert elo(mixed, weights=weights) == elo(compared, weights=weights)


@given(BATTLES, WEIGHTS, st.permutations(NAMES))
def test_names_do_not_matter(compared: list[Battle], weights: tuple[float, float], others: list[str]) -> None:
    new = {"": "", **dict(zip(NAMES, others, strict=True))}
    renamed = [battle(new[b.first_id], new[b.second_id], new[b.winner_id]) for b in compared]
    scores, again = elo(compared, weights=weights), elo(renamed, weights=weights)
    assert {new[name]: score for name, score in scores.items()} == pytest.approx(again, abs=ROUNDING)


@given(BATTLES, WEIGHTS)
def test_the_scores_are_the_most_likely_ones_and_sum_to_zero(
    compared: list[Battle], weights: tuple[float, float]
) -> None:
    scores = elo(compared, weights=weights)

    def objective(e: dict[str, float]) -> float:
        found = -PRIOR_PRECISION / 2 * sum(value**2 for value in e.values())
        for b in compared:
            loser = b.second_id if b.winner_id == b.first_id else b.first_id
            if b.winner_id:
                found -= weights[b.winner_id == b.second_id] * math.log1p(math.exp(e[loser] - e[b.winner_id]))
        return found

    assert sum(scores.values()) == pytest.approx(0, abs=1e-5)
    best = objective(scores)
    for name in scores:
        for step in (-0.01, 0.01):
            assert objective({**scores, name: scores[name] + step}) < best


@given(BATTLES, st.floats(0.05, 0.95), st.permutations(NAMES), st.booleans())
def test_one_more_win_never_lowers_the_winner_against_any_other(
    compared: list[Battle], share: float, names: list[str], first: bool
) -> None:
    winner, loser = names[:2]
    everybody = [battle(m, n) for m, n in pairwise(NAMES)]
    weights = (share, 1 - share)
    before = elo([*everybody, *compared], weights=weights)
    one_more = battle(winner, loser, winner) if first else battle(loser, winner, winner)
    after = elo([*everybody, *compared, one_more], weights=weights)
    moved = {name: after[name] - before[name] for name in NAMES}
    assert moved[winner] > 0 > moved[loser]
    assert np.all(np.array(list(moved.values())) <= moved[winner] + ROUNDING)
