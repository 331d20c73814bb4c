"""Reliability: the share of the score differences between a prompt's responses that a judge would reproduce.

r = B / (B + W / J): B is the reproducible variance between a prompt's responses, W the variance that is not
reproducible, J the number of replicates of which a score is the mean. Both are pooled over prompts before they are
divided, because a ratio from four responses is mostly noise. For complete data r is Cronbach's alpha, pooled. r uses no
labels: it measures whether a judge repeats itself, never whether it is right.

* A judge that scores: the replicates are its draws. An offset that a draw adds to all responses of a prompt (by a
prompt
  variant that is more lenient, for all prompts or for this one) cannot change their order, so it is not noise: B is the
  covariance over responses of two draws, and W half the variance of their difference, averaged over pairs of draws; n
  responses and J draws leave (n - 1)(J - 1) degrees of freedom for W. For sampled draws its expectation equals that of
  the one-way formula, which has n (J - 1).
* A judge that compares: each comparison makes two mirrored judgments, so that the draws of a response are not
  independent, and the one-way formula would give pure noise 0.5 with two responses and 0.25 with four. The unit is the
  unordered pair of responses, x the preference for its lower id, and the replicates are the two orders. Which response
  has the lower id is arbitrary, and reversing a pair maps x to 1 - x; so pairs are deviations from the known 0.5, not
  from their mean, and B + W / J is the mean of (pair mean - 0.5)^2. The average effect of the first position over all
  pairs is removed first, at the cost of one degree of freedom: averaging both orders removes it. Draws of one order are
  averaged first, because they share the effect of that order on that pair, which more draws do not remove. r is the
  reliability of one pair's preference; a response's mean over all its comparisons is more reliable.

The interval resamples prompts: bootstrap-t (Efron 1979) on log((B + W / J) / (W / J)), whose error is finite and nearly
normal even where r is 0; Student's t from 400 prompts on. At 12 prompts the percentile bootstrap covers 2 to 4 pp less,
linearisation and the jackknife 4 pp less where the spread differs between prompts, and F quantiles, which assume that
it does not, cover 70 to 83 % there, also with more prompts.

Limits of the coverage (95 % intervals, 1,000 simulated samples each, standard error 0.7 pp, four responses per prompt;
`benchmarks/judge_statistics.py`):

* From 50 prompts on 93 to 96 %, with every kind of judge, and 97 to 98 % where r is 0, since no limit lies below 0.
* At 12 prompts 92 to 95 %, but 90 % where the spread differs a lot between prompts, and 86 % for integer scores that
are
  nearly all at the top of the scale, where only a few prompts vary. There the interval is mostly too low.
* Few prompts mainly affect the width, not the coverage: 0.4 to 0.65 at 12, 0.2 to 0.5 at 50, 0.1 to 0.3 at 200.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from selfreward.records import Interval, Judgment
from selfreward.statistics import NotEnoughDataError
from selfreward.statistics.score_table import ORDERS, ScoreTable, draws_by_response, orders_by_pair, score_table
from selfreward.statistics.smooth import smooth_limits

Array = NDArray[np.float64]

# Variances below this share of the squared largest score are rounding.
ROUNDING = 1e-24


@dataclass(frozen=True)
class _Replicates:
    """Scores of shape (prompts, units, replicates), nan where there is none.

    Units are responses whose mean in a prompt is not known, or (`centred`) pairs of responses whose mean is 0.
    """

    prompt_ids: tuple[str, ...]
    x_PUC: Array
    centred: bool


@dataclass(frozen=True)
class _Spread:
    """B + W / J (`observed`) and W / J (`noise`) by prompt with replicates, times its weight; and the pooled W."""

    observed_P: Array
    noise_P: Array
    within: float


def reliability(judgments: Iterable[Judgment]) -> float | None:
    """Return r of the judge's overall scores (`part` is ""), in [0, 1].

    It is 0 for a judge that draws at random, and for one that gives every response the same score; close to 1 for one
    that repeats itself. None when it cannot be estimated: it needs a prompt with two responses that were both scored in
    the same two draws or, for a judge that compares, two pairs scored in both orders.
    """
    return reliability_of(score_table(judgments))


def reliability_of(table: ScoreTable) -> float | None:
    """Return `reliability` of a table."""
    spread = _spread(_replicates(table))
    return None if spread is None else _ratio(spread)


def reliability_interval(table: ScoreTable, *, level: float = 0.95, seed: int) -> Interval:
    """Return r with an interval that resamples prompts. Raises NotEnoughDataError, also for a single prompt."""
    spread = _spread(_replicates(table))
    if spread is None:
        raise NotEnoughDataError(
            "nothing was scored twice: no prompt has two responses with the same two draws; "
            "to a deterministic score reliability does not apply"
        )
    n, r = len(spread.observed_P), _ratio(spread)
    if n < 2:
        raise NotEnoughDataError("a single prompt was scored twice; an interval needs at least two")
    if not (spread.noise_P.any() and spread.observed_P.any()):
        return Interval(r, r, r, n, level, "no_variance")
    if spread.observed_P.sum() <= 0:
        raise NotEnoughDataError("too few draws were scored to tell differences between responses from noise")
    sums_P2 = np.stack([spread.observed_P, spread.noise_P], axis=1)
    low, high, method = smooth_limits(sums_P2, _log_ratio, level=level, seed=seed)
    low, high = (float(np.clip(-np.expm1(-limit), 0.0, 1.0)) for limit in (low, high))
    return Interval(r, min(low, r), max(high, r), n, level, method)


def reliability_by_prompt(judgments: Iterable[Judgment]) -> dict[str, float]:
    """Return r by prompt id, in [0, 1], from the prompt's own B + W / J and J, and the W pooled over all prompts.

    With a pooled W, the noise of a few draws does not matter; the noise of a few responses remains. The
    share of prompts on which a judge that draws at random still reaches 0.3, 0.5, 0.7 and 0.8 (20,000 simulated):
    four responses and two or three draws 20 to 24 %, 11 %, 2 % and 0.2 %; seven responses and eleven draws 19 %, 6 %,
    0.3 % and hardly ever; pairs of four responses 20 %, 5 %, 0.1 % and never. So a prompt that passes does not show a
    good judge: check `reliability` first. A prompt without two scored responses is absent, and all prompts are absent
    if W cannot be estimated (`reliability` is None).
    """
    return reliability_by_prompt_of(score_table(judgments))


def reliability_by_prompt_of(table: ScoreTable) -> dict[str, float]:
    """Return `reliability_by_prompt` of a table."""
    replicates = _replicates(table)
    spread = _spread(replicates)
    if spread is None:
        return {}
    x_PUC = _without_column_effects(replicates)
    num_PU = np.isfinite(x_PUC).sum(axis=2)
    is_scored_PU, num_PU = num_PU > 0, np.maximum(num_PU, 1)
    num_P = is_scored_PU.sum(axis=1)
    mean_PU = np.nansum(x_PUC, axis=2) / num_PU
    noise_P = spread.within * _mean_where(1.0 / num_PU, is_scored_PU)
    if replicates.centred:
        observed_P, needed = _mean_where(mean_PU**2, is_scored_PU), 1
    else:
        deviation_PU = mean_PU - _mean_where(mean_PU, is_scored_PU)[:, None]
        observed_P = np.where(is_scored_PU, deviation_PU**2, 0.0).sum(axis=1) / np.maximum(num_P - 1, 1)
        needed = 2
    observed_P[observed_P <= ROUNDING * _largest(replicates.x_PUC) ** 2] = 0.0
    r_P = np.clip(1.0 - noise_P / np.where(observed_P > 0, observed_P, np.inf), 0.0, 1.0)
    r_P[observed_P == 0] = 0.0
    return {
        prompt_id: float(r)
        for prompt_id, r, num in zip(replicates.prompt_ids, r_P, num_P, strict=True)
        if num >= needed
    }


def _replicates(table: ScoreTable) -> _Replicates:
    prompt_ids, x_PU2 = orders_by_pair(table)
    if prompt_ids:
        return _Replicates(prompt_ids, x_PU2 - 0.5, centred=True)
    prompt_ids, x_PRD = draws_by_response(table)
    return _Replicates(prompt_ids, x_PRD, centred=False)


def _spread(replicates: _Replicates) -> _Spread | None:
    if replicates.x_PUC.size == 0:
        return None
    return _spread_of_pairs(replicates.x_PUC) if replicates.centred else _spread_of_responses(replicates.x_PUC)


def _spread_of_pairs(x_PU2: Array) -> _Spread | None:
    """Return the spread from preferences minus 0.5, shown first and shown second."""
    is_both_PU = np.isfinite(x_PU2).sum(axis=2) == ORDERS
    num = int(is_both_PU.sum())
    if num < 2:
        return None
    x_PU2 = np.where(is_both_PU[:, :, None], x_PU2, 0.0)
    difference_PU = x_PU2[:, :, 0] - x_PU2[:, :, 1]
    # Twice the effect of the first position.
    difference_PU = np.where(is_both_PU, difference_PU - difference_PU.sum() / num, 0.0)
    # num / (num - 1): the mean costs one degree of freedom.
    noise_PU = difference_PU**2 / 4 * num / (num - 1)
    rows = is_both_PU.sum(axis=1) > 0
    tiny = ROUNDING * _largest(x_PU2 + 0.5) ** 2
    noise_P, observed_P = noise_PU.sum(axis=1)[rows], (x_PU2.mean(axis=2) ** 2).sum(axis=1)[rows]
    noise_P[noise_P <= tiny], observed_P[observed_P <= tiny] = 0.0, 0.0
    return _Spread(observed_P, noise_P, within=2 * float(noise_P.sum()) / num)


def _spread_of_responses(x_PRD: Array) -> _Spread | None:
    num_prompts, _, num_draws = x_PRD.shape
    between_P, within_P, freedom_P, num_pairs_P = (np.zeros(num_prompts) for _ in range(4))
    for d in range(num_draws):
        for e in range(d):
            is_both_PR = np.isfinite(x_PRD[:, :, d]) & np.isfinite(x_PRD[:, :, e])
            one_PR, other_PR = _deviations(x_PRD[:, :, d], is_both_PR), _deviations(x_PRD[:, :, e], is_both_PR)
            between_P += (one_PR * other_PR).sum(axis=1)
            within_P += ((one_PR - other_PR) ** 2).sum(axis=1) / 2
            freedom = np.maximum(is_both_PR.sum(axis=1) - 1, 0)
            freedom_P += freedom
            num_pairs_P += freedom > 0
    rows = freedom_P > 0
    if not rows.any():
        return None
    num_PR = np.isfinite(x_PRD).sum(axis=2)
    inverse_draws_P = _mean_where(1.0 / np.maximum(num_PR, 1), num_PR > 0)[rows]
    # A prompt's weight is its number of responses minus one; the sums above count it once for each pair of draws.
    within_P, between_P = within_P[rows] / num_pairs_P[rows], between_P[rows] / num_pairs_P[rows]
    noise_P = within_P * inverse_draws_P
    observed_P = between_P + noise_P
    tiny = ROUNDING * _largest(x_PRD) ** 2
    noise_P[noise_P <= tiny], observed_P[np.abs(observed_P) <= tiny] = 0.0, 0.0
    weight = float((freedom_P[rows] / num_pairs_P[rows]).sum())
    return _Spread(observed_P, noise_P, within=float(within_P.sum()) / weight)


def _without_column_effects(replicates: _Replicates) -> Array:
    """Subtract the mean effect of each replicate, which matters where a unit lacks a replicate that others have."""
    x_PUC = replicates.x_PUC
    if replicates.centred:
        effect = np.nanmean(x_PUC[:, :, 0] - x_PUC[:, :, 1]) / 2
        return np.asarray(x_PUC - np.array([effect, -effect]))
    x_UC = x_PUC.reshape(-1, x_PUC.shape[2])
    is_scored_UC = np.isfinite(x_UC).astype(np.float64)
    num_U1 = np.maximum(is_scored_UC.sum(axis=1, keepdims=True), 1.0)
    deviation_UC = np.where(is_scored_UC > 0, x_UC - np.nansum(x_UC, axis=1, keepdims=True) / num_U1, 0.0)
    # Least squares with a mean for each response and an effect for each draw; the means are eliminated.
    normal_CC = np.diag(is_scored_UC.sum(axis=0)) - is_scored_UC.T @ (is_scored_UC / num_U1)
    effect_C, *_ = np.linalg.lstsq(normal_CC, deviation_UC.sum(axis=0), rcond=1e-10)
    return np.asarray(x_PUC - effect_C)


def _deviations(x_PR: Array, where_PR: NDArray[np.bool_]) -> Array:
    """Return the deviations from the mean of a row over `where`; 0 elsewhere."""
    x_PR = np.where(where_PR, x_PR, 0.0)
    return np.where(where_PR, x_PR - _mean_where(x_PR, where_PR)[:, None], 0.0)


def _mean_where(x_PR: Array, where_PR: NDArray[np.bool_]) -> Array:
    return np.asarray(np.where(where_PR, x_PR, 0.0).sum(axis=1) / np.maximum(where_PR.sum(axis=1), 1))


def _largest(x: Array) -> float:
    return float(np.nanmax(np.abs(x), initial=0.0))


def _ratio(spread: _Spread) -> float:
    observed, noise = float(spread.observed_P.sum()), float(spread.noise_P.sum())
    return max(1.0 - noise / observed, 0.0) if observed > 0 else 0.0


def _log_ratio(mean_B2: Array) -> tuple[Array, Array]:
    return np.log(mean_B2[:, 0] / mean_B2[:, 1]), np.stack([1 / mean_B2[:, 0], -1 / mean_B2[:, 1]], axis=1)
