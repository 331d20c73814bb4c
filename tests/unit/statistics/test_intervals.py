"""Intervals: their coverage and their width."""

import importlib.util
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfreward.monitoring.bounds import Levels, widened
from selfreward.records import Interval, Judgment
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import (
    mean_interval,
    paired_interval,
    rate_interval,
    student_quantile,
    without_a_point,
)
from selfreward.statistics.judge_metrics import measure_judge


def load_benchmark():
    path = Path(__file__).parents[3] / "benchmarks" / "interval_coverage.py"
    spec = importlib.util.spec_from_file_location("interval_coverage", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BENCHMARK = load_benchmark()
CASES = {case.name: case for case in BENCHMARK.cases()}
NUM_SAMPLES = 300


@pytest.mark.parametrize("n", [8, 128])
@pytest.mark.parametrize("name", CASES)
def test_intervals_cover_the_truth(name, n):
    row = BENCHMARK.simulate(CASES[name], n, num_samples=NUM_SAMPLES, seed=1)
    # Three percentage points for the limits of the coverage (see the module), and three standard errors of the
    # simulation.
    assert row.coverage >= 0.95 - 0.03 - 3 * math.sqrt(0.95 * 0.05 / NUM_SAMPLES)


def test_rates_are_covered_at_least_as_often_as_promised_wherever_they_lie():
    """Exactly, by summing over all samples: no rate, however close to 0 or 1, is an exception."""
    for n in (1, 2, 4, 8, 32, 128):
        samples = [rate_interval([True] * k + [False] * (n - k)) for k in range(n + 1)]
        ends = [end for interval in samples for end in (interval.low, interval.high)]
        # Coverage is lowest just beyond an end.
        for rate in {min(max(end + step, 1e-9), 1 - 1e-9) for end in ends for step in (-1e-9, 1e-9)} | {0.00125, 0.022}:
            covered = sum(
                math.comb(n, k) * rate**k * (1 - rate) ** (n - k)
                for k, interval in enumerate(samples)
                if interval.low <= rate <= interval.high
            )
            assert covered >= 0.95 - 1e-6


@pytest.mark.parametrize(
    ("n", "name"),
    [
        (32, "win/tie/loss .3 .4 .3"),
        (32, "preference Beta(2, 2)"),
        (32, "rate 0.3"),
        (400, "win/tie/loss .3 .4 .3"),
        (400, "preference Beta(50, 50)"),
        (400, "rate 0.3"),
    ],
)
def test_intervals_are_not_wide_for_nothing(n, name):
    """An interval that always covers would be useless: its width is near that of the exact normal interval."""
    case = CASES[name]
    row = BENCHMARK.simulate(case, n, num_samples=100, seed=2)
    standard_error = case.draw(np.random.default_rng(0), 100_000).std() / math.sqrt(n)
    assert row.mean_width < 1.25 * 2 * 1.96 * standard_error


def test_a_unanimous_sample_is_not_certain():
    few, many = (mean_interval([0.5] * n, bounds=(0, 1)) for n in (8, 300))
    assert few.low < 0.35 and few.high > 0.65
    assert few.low < many.low < 0.5 < many.high < few.high
    # With 0 of n the upper limit is Clopper and Pearson's: 1 - 0.025 ** (1 / n).
    assert mean_interval([0.0] * 8, bounds=(0, 1)).high == pytest.approx(1 - 0.025 ** (1 / 8), abs=0.02)
    assert rate_interval([False] * 8).high > 0.25


def test_rates_are_clopper_and_pearson_intervals():
    interval = rate_interval([True] * 9 + [False])
    # At the lower end nine or ten of ten have a chance of 2.5 %, at the upper end at most nine of ten.
    q, r = interval.low, interval.high
    assert 10 * q**9 * (1 - q) + q**10 == pytest.approx(0.025)
    assert 1 - r**10 == pytest.approx(0.025)
    assert rate_interval([False] * 20).high == pytest.approx(1 - 0.025 ** (1 / 20))
    mirrored = rate_interval([False] * 9 + [True])
    assert (mirrored.low, mirrored.high) == (pytest.approx(1 - r), pytest.approx(1 - q))
    many = rate_interval([True] * 10_000 + [False] * 30_000)
    assert many.high - many.low == pytest.approx(2 * 1.96 * math.sqrt(0.25 * 0.75 / 40_000), rel=0.01)


@pytest.mark.parametrize("n", [8, 32, 64, 128, 400])
def test_nearly_equal_outcomes_are_as_uncertain_as_equal_ones(n):
    """Unobserved values may lie far away, and a little noise on the observed ones is no evidence against it."""
    noise = np.random.default_rng(0).uniform(-0.005, 0.005, size=n)
    noisy, equal = (mean_interval(values, bounds=(0, 1)) for values in (0.99 + noise, np.full(n, 0.99)))
    assert noisy.low == pytest.approx(equal.low, abs=0.3 * (equal.mean - equal.low))
    assert noisy.low < 1 - 2 / n


def test_values_without_bounds_and_without_spread_are_a_point_that_says_so():
    interval = mean_interval([0.0] * 8)
    assert (interval.low, interval.high, interval.method) == (0.0, 0.0, "no_variance")


def test_pairing_removes_the_common_variance():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0, 10, size=64)
    noise = rng.normal(0, 0.5, size=64)
    paired = paired_interval(difficulty + 1 + noise, difficulty)
    assert paired.low > 0
    assert mean_interval(difficulty + 1 + noise).low < mean_interval(difficulty).high


def test_skewed_values_get_a_longer_upper_side():
    interval = mean_interval(np.random.default_rng(3).lognormal(0, 1, size=40))
    assert interval.method == "bootstrap_t"
    assert interval.high - interval.mean > 1.2 * (interval.mean - interval.low)


def test_order_does_not_matter_and_the_same_values_give_the_same_interval():
    values = np.random.default_rng(5).random(50)
    assert mean_interval(values) == mean_interval(values[::-1])
    assert mean_interval(values, seed=1) == mean_interval(values.tolist(), seed=1)
    assert mean_interval(values, seed=1).low != mean_interval(values, seed=2).low


def test_a_higher_level_gives_a_wider_interval():
    values = np.random.default_rng(6).random(50)
    inner, outer = (mean_interval(values, level=level) for level in (0.9, 0.999))
    assert outer.low < inner.low < inner.mean < inner.high < outer.high


def test_student_quantiles_are_those_of_the_tables():
    table = {1: 12.706, 2: 4.303, 5: 2.571, 30: 2.042, 400: 1.966, 100_000: 1.960}
    assert {df: round(student_quantile(0.975, df), 3) for df in table} == table


@pytest.mark.parametrize("make", [lambda: mean_interval([]), lambda: mean_interval([3.0]), lambda: rate_interval([])])
def test_too_few_values_give_no_estimate(make):
    with pytest.raises(NotEnoughDataError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: mean_interval([1.0, math.nan]),
        lambda: mean_interval([0.2, 1.7], bounds=(0, 1)),
        lambda: mean_interval([0.2, 0.7], level=95),
        lambda: paired_interval([1.0, 2.0], [1.0]),
    ],
)
def test_wrong_values_are_refused(make):
    with pytest.raises(ValueError) as error:
        make()
    assert not isinstance(error.value, NotEnoughDataError)


@settings(deadline=None, max_examples=150)
@given(
    values=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1), min_size=1, max_size=60),
    level=st.sampled_from([0.5, 0.9, 0.95, 0.998]),
)
def test_bounded_intervals_are_finite_ordered_and_inside(values, level):
    interval = mean_interval(values, bounds=(0, 1), level=level)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1
    assert interval.low < interval.high or len(set(values)) > 1
    assert interval.num_units == len(values)
    json.dumps(asdict(interval), allow_nan=False)


@settings(deadline=None, max_examples=150)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60))
def test_unbounded_intervals_are_finite_and_ordered(values):
    interval = mean_interval(values)
    assert interval.low <= interval.mean <= interval.high
    json.dumps(asdict(interval), allow_nan=False)


# -- bounds stay in the range of their quantity -----------------------------------------------------------------------

_RATES = st.lists(
    st.sampled_from([0.0, 1e-300, 0.1, 0.1 + 0.2, 0.5, 2 / 3, 1.0 - 2**-53, 1.0]), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(values=_RATES, level=st.sampled_from([0.5, 0.95, 0.9999]), width=st.sampled_from([1.0, 2.0, 1e-3]))
def test_the_bounds_of_a_mean_stay_within_those_of_its_values(values: list[float], level: float, width: float) -> None:
    low, high = -width / 2, width / 2
    scaled = [min(max(low + width * value, low), high) for value in values]
    found = mean_interval(scaled, bounds=(low, high), level=level)
    assert low <= found.low <= found.mean <= found.high <= high
    assert found.low < found.high, "an interval around a constant has a width, because other values are possible"
    pairs = paired_interval(values, values[::-1], bounds=(0, 1), level=level)
    assert -1 <= pairs.low <= pairs.mean <= pairs.high <= 1 and pairs.low < pairs.high
    rates = rate_interval([value > 0.4 for value in values], level=level)
    assert 0 <= rates.low <= rates.mean <= rates.high <= 1 and rates.low < rates.high


@settings(max_examples=100, deadline=None)
@given(
    mean=st.floats(-1, 1),
    below=st.floats(0, 2),
    above=st.floats(0, 2),
    alphas=st.sampled_from([(0.05, 0.01), (1e-4, 1e-6), (0.4, 0.3)]),
)
def test_widened_bounds_stay_within_the_limits(
    mean: float, below: float, above: float, alphas: tuple[float, float]
) -> None:
    """Rescaled to a stricter level, the bounds of Kendall's tau do not leave [-1, 1]."""
    found = Interval(mean, max(mean - below, -1.0), min(mean + above, 1.0), 5)
    made = widened(found, Levels(*alphas), limits=(-1.0, 1.0))
    assert made is not None
    for low, high in (made.stop, made.harm):
        assert -1.0 <= low <= mean <= high <= 1.0


def test_a_constant_without_bounds_has_a_value_and_no_interval() -> None:
    assert without_a_point(mean_interval([3.0, 3.0, 3.0])) == 3.0
    assert isinstance(without_a_point(mean_interval([3.0, 4.0, 3.0])), Interval)
    assert isinstance(without_a_point(mean_interval([1.0] * 3, bounds=(0, 1))), Interval)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.lists(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=8),
    lengths=st.lists(st.integers(1, 4), min_size=16, max_size=16),
)
def test_every_metric_of_a_judge_stays_in_its_range_and_no_interval_is_a_point(
    scores: list[list[int]], lengths: list[int]
) -> None:
    """Two draws each of two responses per prompt, also where all scores are the same."""
    judgments = [
        Judgment(f"{p}-{r}-{d}", f"p{p}", f"p{p}-r{r}", "judge", d, float(min(row[r] + d * (p % 2), 5)), None, "")
        for p, row in enumerate(scores)
        for r in range(2)
        for d in range(2)
    ]
    tokens = {f"p{p}-r{r}": lengths[(2 * p + r) % 16] for p in range(len(scores)) for r in range(2)}
    metrics, _ = measure_judge(judgments, response_lengths=tokens, scale=(0.0, 5.0), seed=0)
    ranges = {
        "judge_score_mean": (0, 5),
        "judge_score_entropy_nats": (0, math.log(6)),
        "judge_length_correlation": (-1, 1),
    }
    for name, value in metrics.items():
        low, high = ranges.get(name, (0, 1))
        mean = value.mean if isinstance(value, Interval) else value
        assert low - 1e-12 <= mean <= high + 1e-12, name
        if isinstance(value, Interval):
            assert low <= value.low <= value.mean <= value.high <= high, name
            assert value.method != "no_variance", name
