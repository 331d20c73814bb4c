"""Variety at a fixed budget, and divergence from on-policy samples."""

import math

import numpy as np
import pytest

from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.divergence import kl_interval, sequence_logprob
from selfreward.statistics.diversity import distinct_n


def test_distinct_n_counts_ngrams_within_each_text():
    # 1-2, 2-1 and 3-4; a pair across the two texts would make a fourth one.
    assert distinct_n([(1, 2, 1, 2), (3, 4)], 2, budget_tokens=6) == pytest.approx(3 / 4)
    assert distinct_n([("a", "a", "a", "a")], 1, budget_tokens=4) == 0.25


def test_distinct_n_does_not_fall_because_there_is_more_text():
    rng = np.random.default_rng(0)
    short = [tuple(rng.integers(0, 50, size=20)) for _ in range(50)]
    long = [tuple(rng.integers(0, 50, size=80)) for _ in range(50)]
    at_budget = [distinct_n(texts, 1, budget_tokens=500) for texts in (short, long)]
    assert at_budget[0] == pytest.approx(at_budget[1], abs=0.02)
    assert distinct_n(long, 1, budget_tokens=4000) < at_budget[1] / 4


def test_collapse_is_seen():
    rng = np.random.default_rng(0)
    varied = [tuple(rng.integers(0, 1000, size=30)) for _ in range(40)]
    collapsed = [(*text[:5], *range(25)) for text in varied]
    assert distinct_n(collapsed, 2, budget_tokens=600) < 0.5 * distinct_n(varied, 2, budget_tokens=600)


def test_distinct_n_reads_the_same_texts_every_time():
    texts = [(i, i + 1, i % 3) for i in range(30)]
    assert distinct_n(texts, 2, budget_tokens=40, seed=3) == distinct_n(texts, 2, budget_tokens=40, seed=3)


@pytest.mark.parametrize(("texts", "n", "budget"), [([(1, 2)], 1, 3), ([], 1, 1), ([(1,), (2,)], 2, 2), ([()], 1, 0)])
def test_texts_that_cannot_fill_the_budget_give_no_number(texts, n, budget):
    with pytest.raises(NotEnoughDataError):
        distinct_n(texts, n, budget_tokens=budget)


def sampled_logprobs(p, q, num_tokens, num_responses, seed):
    """Log-probabilities under p and q of responses drawn from p, token by token."""
    draws = np.random.default_rng(seed).choice(len(p), p=p, size=(num_responses, num_tokens))
    return [[sequence_logprob(np.log(model)[row]) for row in draws] for model in (p, q)]


def test_kl_of_known_distributions_is_found():
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    truth = 10 * float(np.sum(p * np.log(p / q)))
    interval = kl_interval(*sampled_logprobs(p, q, num_tokens=10, num_responses=300, seed=0))
    assert interval.low < truth < interval.high
    assert interval.high - interval.low < truth  # and not by being wide
    assert interval.num_units == 300


def test_kl_is_unbiased_over_many_small_samples():
    p, q = np.array([0.5, 0.5]), np.array([0.4, 0.6])
    truth = 5 * float(np.sum(p * np.log(p / q)))
    means = [kl_interval(*sampled_logprobs(p, q, 5, 16, seed)).mean for seed in range(200)]
    assert np.mean(means) == pytest.approx(truth, abs=4 * np.std(means) / math.sqrt(200))
    assert min(means) < 0  # a small sample may say less than nothing, and is not clipped


def test_equal_models_are_at_distance_zero():
    interval = kl_interval([-3.0, -5.5, -1.25], [-3.0, -5.5, -1.25])
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)
    with pytest.raises(NotEnoughDataError):
        kl_interval([-1.0], [-1.0])
