"""Metrics of a judge computed from its judgments in one iteration, without labels.

All metrics use the judge's overall scores (`part` is ""), except `judge_member_agreement`. Every metric is computed for
each prompt and then averaged over prompts, unless stated otherwise, and every interval resamples prompts:

* `judge_reliability`: see `reliability.py`; pooled over prompts.
* `judge_position_consistency_rate`, in [0, 1]: share of pairs of responses with the same winner in both orders. An
  order's verdict is its mean preference over draws; exactly 0.5 is a tie, and ties in both orders are consistent.
  `judge_preference_fairness`, in [-1, 1]: among all pairs, the share won by the second position minus the share won by
  the first; -1 is pure primacy. A tie in only one order counts like the other order's verdict.
  Paper: 2406.07791 (position consistency, preference fairness). Differs: the paper multiplies counts with their shares
  among inconsistent pairs and rescales to [-1, 1]; with shares that sum to 1 that is the same difference, with
  equal weights for all pairs. Probabilities instead of verdicts, draws averaged first, prompts averaged instead of
  pairs, and no third option "both are good": a tie is a preference of exactly 0.5.
* `judge_unscored_rate`: share of unscored judgments.
* `judge_score_mean`: not for a judge that compares, whose mirrored scores always average to 0.5.
* `judge_score_entropy_nats`, `judge_top_score_rate`: of all scored draws, each counted at the nearest step of the
  scale. A step is 1 where the ends are integers more than 1 apart, else a tenth of the width. The entropy is that of
  the pooled histogram, from 0 to the logarithm of the number of steps; the rate is that of the last step.
* `judge_tie_rate`: share of pairs of a prompt's scored responses that have the same mean score.
* `judge_length_correlation`: Pearson correlation of mean score and length, both minus their mean over the prompt,
pooled
  over prompts. Responses without a length are left out.
* `judge_member_agreement`: mean of Kendall's tau-b between the rankings of two members (or criteria), over pairs of
  them. A member's own parts, which have a / in their name, are not counted again.

Intervals (`benchmarks/judge_statistics.py`): means over prompts use `intervals.py`. The interval of the length
correlation is a bootstrap-t on its atanh; it covers 92 to 94 % at 12 prompts and 93 to 97 % at 50 or more. The interval
of the entropy is linearised, ignores unobserved scores, and covers 89 % at 12 prompts, 92 % at 50.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from selfreward.records import Interval, Judgment
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.intervals import LARGE_SAMPLE, mean_interval, without_a_point
from selfreward.statistics.kendall import BOUNDS, Means, tau_of
from selfreward.statistics.reliability import reliability_interval
from selfreward.statistics.score_table import ORDERS, ScoreTable, mean_by_response, orders_by_pair, score_table
from selfreward.statistics.smooth import smooth_limits

Array = NDArray[np.float64]

RATE = (0.0, 1.0)
LEVEL = 0.95


def measure_judge(
    judgments: Iterable[Judgment], *, response_lengths: Mapping[str, int], scale: tuple[float, float] | None, seed: int
) -> tuple[dict[str, Interval | float], dict[str, str]]:
    """Return the metrics above by name, and the reason for each one that could not be measured.

    `response_lengths` are in tokens by response id, `scale` is the judge's lowest and highest score. Makes one pass
    over the judgments, of which only numbers and ids are stored. Raises ValueError for a score outside the scale.
    """
    table = score_table(judgments)
    means = mean_by_response(table)
    measures: dict[str, Callable[[], Interval]] = {
        "judge_reliability": lambda: reliability_interval(table, level=LEVEL, seed=seed),
        "judge_position_consistency_rate": lambda: position_interval(table, seed, fairness=False),
        "judge_preference_fairness": lambda: position_interval(table, seed, fairness=True),
        "judge_unscored_rate": lambda: _unscored_rate(table, seed),
        "judge_score_mean": lambda: _score_mean(table, scale, seed),
        "judge_score_entropy_nats": lambda: entropy_interval(score_histogram(table, scale), seed),
        "judge_top_score_rate": lambda: _top_rate(score_histogram(table, scale), seed),
        "judge_tie_rate": lambda: tie_rate_interval(means, seed),
        "judge_length_correlation": lambda: length_correlation_interval(means, response_lengths, seed),
        "judge_member_agreement": lambda: _member_agreement(table, seed),
    }
    metrics: dict[str, Interval | float] = {}
    not_measured: dict[str, str] = {}
    for name, measure in measures.items():
        try:
            metrics[name] = without_a_point(measure())
        except NotEnoughDataError as error:
            not_measured[name] = str(error)
    return metrics, not_measured


def _mean(values: list[float] | Array, seed: int, *, none: str, bounds: tuple[float, float] | None) -> Interval:
    if len(values) == 0:
        raise NotEnoughDataError(none)
    if len(values) == 1 and bounds is None:
        raise NotEnoughDataError("a single prompt was judged; an interval needs at least two")
    return mean_interval(values, bounds=bounds, level=LEVEL, seed=seed)


def position_interval(table: ScoreTable, seed: int, *, fairness: bool) -> Interval:
    """Return the interval of position consistency, or of preference fairness."""
    prompt_ids, x_PU2 = orders_by_pair(table)
    if not prompt_ids:
        raise NotEnoughDataError("the judge scores one response at a time and has no order to be swapped")
    is_both_PU = np.isfinite(x_PU2).sum(axis=2) == ORDERS
    # 1: the first position won; -1: the second; the lower id was shown first in the first of the two orders.
    first_PU2 = np.sign(x_PU2 - 0.5) * np.array([1.0, -1.0])
    moved_PU = np.sign(first_PU2.sum(axis=2))
    value_PU = np.where(is_both_PU, -moved_PU if fairness else (moved_PU == 0).astype(np.float64), 0.0)
    rows = is_both_PU.sum(axis=1) > 0
    values = value_PU[rows].sum(axis=1) / is_both_PU[rows].sum(axis=1)
    return _mean(values, seed, none="no two responses were scored in both orders", bounds=(-1, 1) if fairness else RATE)


def _unscored_rate(table: ScoreTable, seed: int) -> Interval:
    rows = table.num_judged_P > 0
    return _mean(table.num_unscored_P[rows] / table.num_judged_P[rows], seed, none="nothing was judged", bounds=RATE)


def _own_rows(table: ScoreTable) -> NDArray[np.bool_]:
    rows = table.part_N == (table.parts.index("") if "" in table.parts else -1)
    if not rows.any():
        raise NotEnoughDataError("no judgment has a score")
    return np.asarray(rows)


def _score_mean(table: ScoreTable, scale: tuple[float, float] | None, seed: int) -> Interval:
    rows = _own_rows(table)
    if (table.other_N[rows] >= 0).any():
        raise NotEnoughDataError("the judge compares: the two scores of a comparison always sum to 1")
    if scale is not None:
        _check_scale(table, rows, scale)
    prompt_M, row_N, num_M = np.unique(table.prompt_N[rows], return_inverse=True, return_counts=True)
    sum_M = np.bincount(row_N, weights=table.score_N[rows], minlength=len(prompt_M))
    # Bounds matter only for small samples, and cost memory with many different values.
    bounds = scale if len(prompt_M) < LARGE_SAMPLE else None
    return _mean(sum_M / num_M, seed, none="no judgment has a score", bounds=bounds)


def _check_scale(table: ScoreTable, rows: NDArray[np.bool_], scale: tuple[float, float]) -> None:
    low, high = float(table.score_N[rows].min()), float(table.score_N[rows].max())
    if low < scale[0] - 1e-9 or high > scale[1] + 1e-9:
        raise ValueError(f"judge: scores from {low} to {high}; its scale is {scale}; give the actual scale")


def score_histogram(table: ScoreTable, scale: tuple[float, float] | None) -> Array:
    """Return how many of a prompt's scored draws are nearest to each step of the scale, shape (prompts, steps)."""
    rows = _own_rows(table)
    if scale is None:
        raise NotEnoughDataError("the judge's scores are unbounded, so its scale has no steps")
    _check_scale(table, rows, scale)
    low, high = scale
    step = 1.0 if low == int(low) and high == int(high) and high - low > 1 else (high - low) / 10
    num_steps = round((high - low) / step) + 1
    # A score halfway between two steps counts for the upper one, regardless of rounding.
    step_N = np.clip(np.floor((table.score_N[rows] - low) / step + 0.5 + 1e-9).astype(np.int64), 0, num_steps - 1)
    prompt_M, row_N = np.unique(table.prompt_N[rows], return_inverse=True)
    counts = np.bincount(row_N * num_steps + step_N, minlength=len(prompt_M) * num_steps)
    return counts.reshape(len(prompt_M), num_steps).astype(np.float64)


def entropy_interval(counts_PK: Array, seed: int) -> Interval:
    """Return the entropy of the pooled histogram; its interval is linearised in the prompts' counts."""
    n, num_steps = counts_PK.shape
    share_K = counts_PK.sum(axis=0) / counts_PK.sum()
    surprise_K = -np.log(np.where(share_K > 0, share_K, 1.0))
    entropy = float(share_K @ surprise_K)
    num_P = counts_PK.sum(axis=1)
    values = entropy + (counts_PK @ surprise_K - num_P * entropy) * n / num_P.sum()
    found = _mean(values, seed, none="", bounds=None)
    low, high = max(found.low, 0.0), min(found.high, math.log(num_steps))
    return Interval(entropy, min(low, entropy), max(high, entropy), n, LEVEL, found.method)


def _top_rate(counts_PK: Array, seed: int) -> Interval:
    return _mean(counts_PK[:, -1] / counts_PK.sum(axis=1), seed, none="", bounds=RATE)


def tie_rate_interval(means: Means, seed: int) -> Interval:
    rates = []
    for scores in means.values():
        pairs = list(combinations(scores.values(), 2))
        if pairs:
            rates.append(sum(a == b for a, b in pairs) / len(pairs))
    return _mean(rates, seed, none="no prompt has two scored responses", bounds=RATE)


def length_correlation_interval(means: Means, response_lengths: Mapping[str, int], seed: int) -> Interval:
    sums = []
    for scores in means.values():
        ids = [response_id for response_id in scores if response_id in response_lengths]
        if len(ids) >= 2:
            score_R = np.array([scores[response_id] for response_id in ids])
            length_R = np.array([float(response_lengths[response_id]) for response_id in ids])
            score_R, length_R = (
                score_R - score_R[0],
                length_R - length_R[0],
            )  # subtracted first, so that equal values become exactly 0
            score_R, length_R = score_R - score_R.mean(), length_R - length_R.mean()
            sums.append((score_R @ length_R, score_R @ score_R, length_R @ length_R))
    sums_P3 = np.array(sums, dtype=np.float64).reshape(-1, 3)
    if len(sums_P3) < 2:
        raise NotEnoughDataError(
            f"prompts that have two scored responses with a length: {len(sums_P3)}; two are needed"
        )
    score_length, score, length = sums_P3.sum(axis=0)
    for name, squares in (("score", score), ("length", length)):
        if squares == 0:
            raise NotEnoughDataError(f"within each prompt all responses have the same {name}")
    correlation = float(np.clip(score_length / math.sqrt(score * length), -1.0, 1.0))
    if abs(correlation) > 1 - 1e-12:
        return Interval(correlation, correlation, correlation, len(sums_P3), LEVEL, "no_variance")
    scaled_P3 = sums_P3 / np.array([math.sqrt(score * length), score, length])
    low, high, method = smooth_limits(scaled_P3, _atanh_correlation, level=LEVEL, seed=seed)
    low, high = min(math.tanh(low), correlation), max(math.tanh(high), correlation)
    return Interval(correlation, low, high, len(sums_P3), LEVEL, method)


def _atanh_correlation(mean_B3: Array) -> tuple[Array, Array]:
    """Return atanh of the correlation, and its gradient, from the means of the products and of both squares."""
    product_B, one_B, other_B = mean_B3.T
    r_B = np.clip(product_B / np.sqrt(one_B * other_B), -1.0, 1.0)
    slope_B = 1.0 / (1.0 - r_B**2)
    gradient = (slope_B / np.sqrt(one_B * other_B), -slope_B * r_B / one_B / 2, -slope_B * r_B / other_B / 2)
    return np.arctanh(r_B), np.stack(gradient, axis=1)


def _member_agreement(table: ScoreTable, seed: int) -> Interval:
    members = [mean_by_response(table, part) for part in table.parts if part and "/" not in part]
    if len(members) < 2:
        raise NotEnoughDataError("the judge has no members or criteria whose rankings could be compared")
    taus: dict[str, list[float]] = {}
    for one, other in combinations(members, 2):
        for prompt_id in one.keys() & other.keys():
            tau = tau_of(one[prompt_id], other[prompt_id])
            if tau is not None:
                taus.setdefault(prompt_id, []).append(tau)
    values = [math.fsum(found) / len(found) for found in taus.values()]
    return _mean(values, seed, none="no prompt has responses that two members distinguish", bounds=BOUNDS)
