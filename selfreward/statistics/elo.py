"""Elo scores of judgments from battles with position bias: weighted wins, then maximum likelihood.

If a meta-judge favours one position, a win there is weak evidence. Its weight is the smaller, the more wins there are
in that position: with P(first wins) = sigmoid(e_first - e_second + b) the weights cancel the bias b, up to terms of
third order in the differences. Unweighted, both orders cancel it too, but position bias flattens the scores by a factor
4 sigmoid'(b).

Paper: 2407.19594, section 2.2 (weights of positions, battle matrix, e = argmax sum_mn B_mn log sigmoid(e_m - e_n)).
Differs: a Gaussian prior of standard deviation 10 on every score. The paper's maximum does not exist when a judgment
won or lost every battle (the usual case with few judgments), and is not unique when the battles do not connect all of
them; with the prior it always exists, is unique, sums to zero, and moves by less than a hundredth where the data
determine it. Elo scores stay in nats: a difference d means odds of exp(d).
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from selfreward.records import Battle

Array = NDArray[np.float64]

PRIOR_PRECISION = 0.01  # 1 / 10**2
# After a step this short the remaining error is about its square.
LAST_STEP = 1e-7
# Scores are rounded, so that numerical noise of the solver never looks like a difference.
DECIMALS = 6


def position_weights(battles: Iterable[Battle]) -> tuple[float, float]:
    """Return the weights of a win in the first and in the second position, from all `battles`; they sum to 1.

    w1 = wins in the second position / all wins, w2 = wins in the first / all wins. If a meta-judge always names the
    same position, all its wins have weight 0. Without any win the bias is unknown, and both weights are 0.5.
    """
    num_first = num_second = 0
    for battle in battles:
        num_first += battle.winner_id == battle.first_id
        num_second += battle.winner_id == battle.second_id
    num_wins = num_first + num_second
    return (num_second / num_wins, num_first / num_wins) if num_wins else (0.5, 0.5)


def elo(battles: Sequence[Battle], *, weights: tuple[float, float]) -> dict[str, float]:
    """Return the Elo scores of all judgments in the battles by id, in nats; their sum is 0 up to rounding.

    Ties and unscored battles count nothing, as in the paper; a judgment with no other battles has score 0. The scores
    do not depend on the order of the battles.
    """
    ids = sorted({name for battle in battles for name in (battle.first_id, battle.second_id)})
    scores = _most_likely(_battle_matrix(battles, ids, weights))
    return {name: round(float(score), DECIMALS) + 0.0 for name, score in zip(ids, scores, strict=True)}


def _battle_matrix(battles: Sequence[Battle], ids: Sequence[str], weights: tuple[float, float]) -> Array:
    """Return B_mn = w1 * [m won in the first position against n] + w2 * [m won in the second position against n]."""
    index_of = {name: index for index, name in enumerate(ids)}
    in_first_NN, in_second_NN = np.zeros(
        (2, len(ids), len(ids))
    )  # integer counts, since sums of weights would depend on their order
    for battle in battles:
        first, second = index_of[battle.first_id], index_of[battle.second_id]
        in_first_NN[first, second] += battle.winner_id == battle.first_id
        in_second_NN[second, first] += battle.winner_id == battle.second_id
    matrix: Array = weights[0] * in_first_NN + weights[1] * in_second_NN
    return matrix


def _most_likely(wins_NN: Array) -> Array:
    """argmax_e of sum_mn B_mn log sigmoid(e_m - e_n) - PRIOR_PRECISION |e|^2 / 2, by Newton's method.

    A step that changes no difference by more than 1 always increases the objective (log sigmoid is self-concordant in
    this sense: its third derivative is no larger than its second), so no line search is needed, and the last steps are
    Newton's own.
    """
    elo_N = np.zeros(len(wins_NN))
    num_battles_NN = wins_NN + wins_NN.T
    reach = np.inf
    while reach > LAST_STEP:
        win_NN = 1.0 / (1.0 + np.exp(elo_N[None, :] - elo_N[:, None]))  # P(m beats n)
        gradient_N = (wins_NN - num_battles_NN * win_NN).sum(axis=1) - PRIOR_PRECISION * elo_N
        curvature_NN = num_battles_NN * win_NN * win_NN.T
        hessian_NN = np.diag(curvature_NN.sum(axis=1) + PRIOR_PRECISION) - curvature_NN
        step_N = np.linalg.solve(hessian_NN, gradient_N)
        reach = float(np.ptp(step_N)) if len(step_N) else 0.0
        elo_N += step_N * min(1.0, 1.0 / reach) if reach else step_N
    return elo_N
