"""Agreement of two judges' rankings of the responses to a prompt.

What it does: Kendall's tau between two rankings of the same responses, in [-1, 1], and its mean over prompts.
Paper: 2410.12735 (CREAM), section 4.2, for tau between the judges of two iterations on the same responses.
Differs: tau-b, because scores of a rubric are often equal; a prompt on which one of the judges gives every response
the same score has no ranking, and is left out instead of counted as 0.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from selfreward.records import Interval, Judgment
from selfreward.statistics.intervals import mean_interval
from selfreward.statistics.score_table import mean_by_response, score_table

Means = Mapping[str, Mapping[str, float]]

BOUNDS = (-1.0, 1.0)


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float | None:
    """Return tau-b in [-1, 1] of paired scores, shape (n,); None when one of them is constant (as with fewer than two).

    Raises ValueError for different lengths.
    """
    a_R, b_R = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a_R.shape != b_R.shape:
        raise ValueError(f"kendall_tau: {a_R.shape} scores against {b_R.shape}; pairs need equal lengths")
    one, other = np.triu_indices(len(a_R), 1)
    sign_a, sign_b = np.sign(a_R[one] - a_R[other]), np.sign(b_R[one] - b_R[other])
    untied = float((sign_a**2).sum() * (sign_b**2).sum())
    return float((sign_a * sign_b).sum()) / math.sqrt(untied) if untied > 0 else None


def tau_of(now: Mapping[str, float], before: Mapping[str, float]) -> float | None:
    """Return tau-b over the responses in both mappings of scores by response id."""
    both = sorted(now.keys() & before.keys())
    return kendall_tau([now[key] for key in both], [before[key] for key in both])


def mean_tau(judgments_now: Iterable[Judgment], judgments_before: Iterable[Judgment], *, seed: int) -> Interval | None:
    """Return the mean over prompts of tau-b between two judges' mean scores, over the responses that both scored.

    Returns None when no prompt has two responses that both judges distinguish.
    """
    now, before = (mean_by_response(score_table(judgments)) for judgments in (judgments_now, judgments_before))
    return mean_tau_of(now, before, seed=seed)


def mean_tau_of(now: Means, before: Means, *, seed: int) -> Interval | None:
    """Return `mean_tau` of mean scores by prompt id and response id."""
    taus = [tau_of(scores, before[prompt_id]) for prompt_id, scores in now.items() if prompt_id in before]
    found = [tau for tau in taus if tau is not None]
    return mean_interval(found, bounds=BOUNDS, seed=seed) if found else None
