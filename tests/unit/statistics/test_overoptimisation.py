"""The fitted curve of over-optimisation: known curves are recovered, and unsuitable data are not fitted."""

import math

import numpy as np
import pytest

from selfreward.statistics.overoptimisation import Fit, band, distance, fit

D = [0.4, 0.9, 1.5, 2.2, 3.0]


def test_a_and_b_of_a_known_curve_come_back() -> None:
    found = fit(D, [d * (0.21 - 0.08 * math.log(d)) for d in D])
    assert found is not None
    assert (found.a, found.b) == pytest.approx((0.21, 0.08))


def test_the_peak_is_where_the_curve_is_highest() -> None:
    curve = Fit(0.21, 0.08)
    grid = np.linspace(0.01, 20, 200_000)
    assert curve.peak == pytest.approx(grid[curve.at(grid).argmax()], abs=1e-3)
    assert curve.at(curve.peak or 0.0) == pytest.approx(curve.b * (curve.peak or 0.0))


def test_a_curve_that_only_rises_has_no_peak() -> None:
    rising = fit(D, [0.1 * d for d in D])
    assert rising is not None and rising.b == pytest.approx(0, abs=1e-12)
    assert Fit(0.1, 0.0).peak is None and Fit(0.1, -0.1).peak is None and Fit(1.0, 1e-9).peak is None


def test_the_curve_begins_at_nothing() -> None:
    assert Fit(0.3, 0.1).at([0.0, 1.0]) == pytest.approx([0.0, 0.3])


def test_too_few_or_equal_distances_are_not_fitted() -> None:
    assert fit(D[:3], [0.1, 0.2, 0.3]) is None
    assert fit([0.0, *D[:3]], [0.0, 0.1, 0.2, 0.3]) is None  # points at distance 0 carry no information on the curve
    assert fit([1.3] * 5, [0.1, 0.2, 0.3, 0.2, 0.1]) is None
    assert band(D[:3], [0.1, 0.2, 0.3], [0.01] * 3, at=D) is None


def test_the_band_holds_the_curve_and_grows_with_the_error() -> None:
    gains = [d * (0.21 - 0.08 * math.log(d)) for d in D]
    curve = Fit(0.21, 0.08).at(D)
    widths = []
    for error in (0.01, 0.03):
        found = band(D, gains, [error] * 5, at=D)
        assert found is not None
        low, high = found
        assert (low < curve).all() and (curve < high).all()
        widths.append(high - low)
    assert widths[1] == pytest.approx(3 * widths[0], rel=1e-6)


def test_the_band_covers_the_true_curve() -> None:
    rng = np.random.default_rng(0)
    true = Fit(0.21, 0.08).at(D)
    hits = 0
    for seed in range(300):
        low, high = band(D, list(true + rng.normal(0, 0.03, 5)), [0.03] * 5, at=[2.0], seed=seed) or ([], [])
        hits += bool(low[0] < Fit(0.21, 0.08).at(2.0) < high[0])
    assert 0.9 <= hits / 300 <= 0.98


def test_an_estimate_below_zero_is_distance_zero() -> None:
    assert distance(-0.2) == 0.0
    assert distance(2.25) == 1.5
