"""The mean outcome at equal length, and the error that its interval includes."""

import numpy as np
import pytest

from selfreward.statistics.intervals import mean_interval
from selfreward.statistics.length_adjusted import adjusted_interval, adjusted_values


def drawn(rng, *, n=400, quality=0.0, reward_of_length=0.3, drift=30.0, spread=40.0):
    """Wins and losses that depend on the length difference; at equal length the mean is 0.5 + quality."""
    deltas = rng.normal(drift, spread, n).round()
    z = np.tanh(deltas / np.sqrt(np.mean(deltas**2)))
    return (rng.random(n) < np.clip(0.5 + quality + reward_of_length * z, 0, 1)).astype(float), deltas


def at_equal_length(values, deltas):
    """The regression that the module describes, by a solver."""
    z = np.tanh(deltas / np.sqrt(np.mean(deltas**2)))
    return float(np.linalg.lstsq(np.column_stack([np.ones_like(z), z]), values, rcond=None)[0][0])


def test_the_mean_is_the_intercept_and_the_spread_the_jackknife():
    values, deltas = drawn(np.random.default_rng(0), n=120)
    adjusted = adjusted_values(values, deltas)
    assert adjusted.mean() == pytest.approx(at_equal_length(values, deltas))
    z = np.tanh(deltas / np.sqrt(np.mean(deltas**2)))
    design = np.column_stack([np.ones_like(z), z])
    left_out = [np.linalg.lstsq(np.delete(design, i, 0), np.delete(values, i), rcond=None)[0][0] for i in range(120)]
    jackknife = np.sqrt(119 / 120 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2))
    assert adjusted.std(ddof=1) / np.sqrt(120) == pytest.approx(jackknife, rel=1e-6)


def test_quality_is_found_under_the_length_that_hides_it():
    values, deltas = drawn(np.random.default_rng(1), n=4000, quality=0.1, reward_of_length=-0.35)
    assert mean_interval(values).high < 0.5
    assert adjusted_interval(values, deltas).low > 0.55


@pytest.mark.parametrize(("n", "drift"), [(150, 30.0), (500, 0.0), (500, 80.0)])
def test_the_interval_covers_the_truth(n, drift):
    rng = np.random.default_rng(2)
    num_samples, missed = 500, [0, 0]
    for _ in range(num_samples):
        interval = adjusted_interval(*drawn(rng, n=n, quality=0.05, drift=drift), level=0.9)
        missed[0] += interval.low > 0.55
        missed[1] += interval.high < 0.55
    # 5 % on each side; four standard errors of the simulation are 3.9 percentage points.
    assert max(missed) / num_samples < 0.09 and sum(missed) / num_samples > 0.05


def test_where_all_grew_alike_the_interval_is_wide():
    rng = np.random.default_rng(3)
    alike = adjusted_interval(*drawn(rng, drift=200.0, spread=10.0))
    apart = adjusted_interval(*drawn(rng, drift=0.0, spread=40.0))
    assert alike.high - alike.low > 5 * (apart.high - apart.low)


def test_without_lengths_or_with_few_outcomes_the_raw_mean_is_kept():
    values, deltas = drawn(np.random.default_rng(4))
    assert adjusted_values(values, np.zeros_like(deltas)) is None
    assert adjusted_values(values, np.full_like(deltas, np.nan)) is None
    few = np.full(400, 0.5)
    few[:20] = 1.0
    assert adjusted_values(few, deltas) is None
    assert adjusted_interval(few, deltas) == mean_interval(few, bounds=(0, 1))


def test_a_part_of_the_prompts_with_lengths_is_not_the_sample():
    values, deltas = drawn(np.random.default_rng(5))
    some = np.where(np.arange(400) < 1, np.nan, deltas)
    assert adjusted_interval(values, some) == mean_interval(values, bounds=(0, 1))


def test_a_line_that_depends_on_one_prompt_is_not_used():
    values, _ = drawn(np.random.default_rng(6))
    for alone, others in ((9.0, 0.0), (0.0, 9.0)):
        assert adjusted_values(values, np.array([alone] + [others] * 399)) is None
