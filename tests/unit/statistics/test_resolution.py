"""The gain that prompts can resolve: the formula against simulated plateaus."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from selfreward.monitoring.bounds import Levels, gain
from selfreward.monitoring.evidence import Outcomes
from selfreward.recipe import MonitorSection
from selfreward.statistics.resolution import prompts_to_resolve, smallest_resolvable_gain


@pytest.mark.parametrize(("num_prompts", "tie_rate"), [(800, 0.4), (400, 0.7), (1600, 0.0)])
def test_a_plateau_is_detected_in_four_of_five_analyses_at_the_smallest_delta(
    num_prompts: int, tie_rate: float
) -> None:
    delta = smallest_resolvable_gain(num_prompts, alpha=0.05, horizon=8, tie_rate=tie_rate)
    win_rate = (1 - tie_rate) / 2
    rng = np.random.default_rng(0)
    wins, _, losses = rng.multinomial(num_prompts, [win_rate, tie_rate, win_rate], size=20_000).T
    gain = (wins - losses) / (2 * num_prompts)
    variance = (wins + losses) / (4 * num_prompts) - gain**2
    upper = gain + NormalDist().inv_cdf(1 - 0.05 / 8) * np.sqrt(variance / (num_prompts - 1))
    assert 0.785 <= (upper < delta).mean() <= 0.815


def test_a_true_gain_of_delta_is_taken_for_a_plateau_as_rarely_as_promised() -> None:
    delta = smallest_resolvable_gain(800, alpha=0.05, horizon=8)
    rng = np.random.default_rng(1)
    wins, _, losses = rng.multinomial(800, [0.3 + delta, 0.4, 0.3 - delta], size=100_000).T
    gain = (wins - losses) / 1600
    variance = (wins + losses) / 3200 - gain**2
    upper = gain + NormalDist().inv_cdf(1 - 0.05 / 8) * np.sqrt(variance / 799)
    assert (upper < delta).mean() <= 1.15 * 0.05 / 8


@pytest.mark.parametrize(("num_prompts", "horizon"), [(20, 2), (32, 2), (64, 4), (128, 8)])
def test_the_monitor_shows_a_gain_of_this_size_in_about_four_of_five_analyses(num_prompts: int, horizon: int) -> None:
    """The bounds that the monitor ships, on few prompts, where they are not normal approximations."""
    true_gain = smallest_resolvable_gain(num_prompts, alpha=0.05, horizon=horizon)
    levels = Levels.of_analysis(MonitorSection(horizon=horizon), 1.0)
    rng = np.random.default_rng(num_prompts)
    drawn = rng.multinomial(num_prompts, [0.3 + true_gain, 0.4, 0.3 - true_gain], size=250)
    counts, repeats = np.unique(drawn, axis=0, return_counts=True)

    def is_shown(wins_ties_losses: np.ndarray) -> bool:
        values = np.repeat([1.0, 0.5, 0.0], wins_ties_losses)
        outcomes = Outcomes(tuple(map(str, range(num_prompts))), values, None, 0)
        found = gain(outcomes, levels, length_adjusted=False)
        return found is not None and found.stop[0] > 0

    assert 0.68 <= np.average([is_shown(row) for row in counts], weights=repeats) <= 0.9


def test_prompts_and_gain_are_inverse() -> None:
    num_prompts = prompts_to_resolve(0.05, alpha=0.05, horizon=8)
    assert 600 < num_prompts < 800  # 800 prompts detect 88 % of plateaus
    assert smallest_resolvable_gain(num_prompts, alpha=0.05, horizon=8) <= 0.05
    assert smallest_resolvable_gain(num_prompts - 1, alpha=0.05, horizon=8) > 0.05


def test_more_analyses_and_less_error_need_more_prompts() -> None:
    one = smallest_resolvable_gain(400, alpha=0.05)
    assert (
        one
        < smallest_resolvable_gain(400, alpha=0.05, horizon=8)
        < smallest_resolvable_gain(400, alpha=0.02, horizon=8)
    )
    assert smallest_resolvable_gain(1600, alpha=0.05) == pytest.approx(one / 2)
    assert (
        smallest_resolvable_gain(400, alpha=0.05, tie_rate=0.8)
        < one
        < smallest_resolvable_gain(400, alpha=0.05, tie_rate=0)
    )
    half_power = NormalDist().inv_cdf(0.95) * math.sqrt(0.15 / 400)
    assert smallest_resolvable_gain(400, alpha=0.05, power=0.5) == pytest.approx(half_power)


def test_a_win_rate_cannot_gain_more_than_a_half() -> None:
    assert smallest_resolvable_gain(2, alpha=0.05, horizon=8) == 0.5
