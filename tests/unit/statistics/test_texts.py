"""Diversity at a fixed budget, divergence from on-policy samples, and similarity of the responses to a prompt."""

import math
from collections import Counter

import numpy as np
import pytest

from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.divergence import kl_interval, sequence_logprob
from selfreward.statistics.diversity import distinct_n
from selfreward.statistics.texts import repeated_share, self_bleu, vendi

SAME = (1, 2, 3, 4, 5, 6)


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


def test_collapse_is_detected():
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
    assert min(means) < 0  # a small sample may give a negative estimate, which is not clipped


def test_equal_models_are_at_distance_zero():
    interval = kl_interval([-3.0, -5.5, -1.25], [-3.0, -5.5, -1.25])
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)
    with pytest.raises(NotEnoughDataError):
        kl_interval([-1.0], [-1.0])


def bleu_by_hand(text, others, epsilon=0.1):
    """BLEU-4 gram by gram, as the definition reads."""
    logs = []
    for n in range(1, 5):
        grams, *of_others = (Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (text, *others))
        if not grams:
            continue
        matches = sum(min(count, max(other[gram] for other in of_others)) for gram, count in grams.items())
        logs.append(math.log((matches or epsilon) / grams.total()))
    closest = min((len(other) for other in others), key=lambda length: (abs(length - len(text)), length))
    brevity = 1.0 if len(text) >= closest else math.exp(1 - closest / len(text))
    return brevity * math.exp(sum(logs) / len(logs))


def test_the_same_text_is_one_text_and_texts_without_a_common_token_are_many():
    assert self_bleu([SAME] * 4) == pytest.approx(1.0)
    assert vendi([SAME] * 4) == pytest.approx(1.0)
    apart = [tuple(range(10 * i, 10 * i + 8)) for i in range(4)]
    assert vendi(apart) == pytest.approx(4.0)
    assert self_bleu(apart) < 0.03


def test_two_of_four_kinds_count_as_what_their_shares_say():
    three_and_one = [SAME, SAME, SAME, (11, 12, 13)]
    assert vendi(three_and_one) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_a_shared_token_is_a_cosine_in_between():
    # Two tokens and one pair each, one token in common: cosine 1/3, eigenvalues 2/3 and 1/3.
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert vendi([(1, 2), (3, 1)]) == pytest.approx(math.exp(entropy))


def test_self_bleu_is_bleu_against_all_others():
    random = np.random.default_rng(3)
    for _ in range(20):
        texts = [tuple(random.integers(0, 5, size=random.integers(1, 30)).tolist()) for _ in range(5)]
        expected = [bleu_by_hand(text, texts[:i] + texts[i + 1 :]) for i, text in enumerate(texts)]
        assert self_bleu(texts) == pytest.approx(np.mean(expected))


def test_no_gram_crosses_from_one_text_to_the_next():
    assert vendi([(1,), (2,)]) == pytest.approx(2.0)
    assert self_bleu([(1,), (1,)]) == pytest.approx(1.0)
    assert self_bleu([(1, 2), (2, 1), (1, 2)]) == pytest.approx((1 + 1 + math.sqrt(1 * 0.1)) / 3)


def test_empty_texts_are_equal_only_to_empty_texts():
    assert self_bleu([(), ()]) == pytest.approx(1.0) == vendi([(), ()])
    assert self_bleu([(), SAME]) == pytest.approx(0.5 * bleu_by_hand(SAME, [()]))
    assert vendi([(), SAME]) == pytest.approx(2.0)


@pytest.mark.parametrize("measure", [self_bleu, vendi])
def test_a_single_text_has_no_similarity(measure):
    with pytest.raises(NotEnoughDataError, match="1 texts"):
        measure([SAME])


def test_order_does_not_matter():
    texts = [(1, 2, 3, 1), (1, 2, 4), (5, 1, 2, 3, 3)]
    assert self_bleu(texts) == pytest.approx(self_bleu(texts[::-1]))
    assert vendi(texts) == pytest.approx(vendi(texts[::-1]))


def test_repetition():
    assert repeated_share(SAME) == 0.0
    assert repeated_share((7,) * 103) == pytest.approx(0.99)
    assert repeated_share((1, 2) * 4) == pytest.approx(3 / 5)
    assert repeated_share((1, 1, 1)) == 0.0
