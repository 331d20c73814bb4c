"""Similarity of the responses to one prompt, and repetition within a text; texts are sequences of token ids.

* `self_bleu`: BLEU-4 of each text against all others as references, mean over the texts. 1: all are the same.
  Paper: 1802.01886 (Texygen), self-BLEU.
  Differs: over the responses to one prompt, on tokens. Where an order has no match its count is 0.1 instead of 0 (as in
  the paper's code); orders longer than the text are left out, so that short texts can be compared too.
* `vendi`: the effective number of different texts, exp of the entropy of the eigenvalues of K / N.
  Paper: 2210.02410 (Vendi score), section 3.
  Differs: K is the cosine of the counts of tokens and pairs of tokens together.
* `repeated_share`: share of a text's 4-grams that occurred in it before; a text with more than half of them is stuck.
  Paper: 2410.06961 (SynPO) leaves out responses that consist of more than half repetition.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from selfreward.statistics import NotEnoughDataError

Array = NDArray[np.float64]
Text = Sequence[int]

BLEU_ORDER = 4
VENDI_ORDER = 2
NO_MATCH = 0.1
STUCK_SHARE = 0.5


def self_bleu(texts: Sequence[Text]) -> float:
    """Return self-BLEU in [0, 1]. Texts without tokens are equal to each other, and unlike all others."""
    _check(texts, "self_bleu")
    length_R = np.array([len(text) for text in texts], dtype=np.float64)
    log_sum_R, num_orders_R = np.zeros(len(texts)), np.zeros(len(texts))
    for count_RG in _gram_counts(texts, BLEU_ORDER):
        match_R = np.minimum(count_RG, _most_in_another(count_RG)).sum(axis=1)
        num_R = count_RG.sum(axis=1)
        # An order longer than the text adds log(0.1 / 0.1) = 0.
        log_sum_R += np.log(np.where(match_R > 0, match_R, NO_MATCH) / np.maximum(num_R, NO_MATCH))
        num_orders_R += num_R > 0
    precision_R = np.exp(log_sum_R / np.maximum(num_orders_R, 1))
    return float(np.mean(precision_R * _brevity_penalty(length_R)))


def vendi(texts: Sequence[Text]) -> float:
    """Return the Vendi score in [1, N] for N texts: 1 when all are the same, N when no two share a token."""
    _check(texts, "vendi")
    count_RG = np.concatenate(_gram_counts(texts, VENDI_ORDER), axis=1)
    norm_R = np.linalg.norm(count_RG, axis=1)
    unit_RG = count_RG / np.maximum(norm_R, 1)[:, None]
    is_empty_R = norm_R == 0
    kernel_RR = unit_RG @ unit_RG.T + np.outer(is_empty_R, is_empty_R)
    eigenvalues = np.linalg.eigvalsh(kernel_RR / len(texts))
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.clip(np.exp(-np.sum(eigenvalues * np.log(eigenvalues))), 1, len(texts)))


def repeated_share(text: Text, n: int = 4) -> float:
    """Return the share of n-grams that occurred before in the text, in [0, 1); 0 for fewer than `n` tokens."""
    num_grams = len(text) - n + 1
    if num_grams < 1:
        return 0.0
    return 1 - len(set(zip(*(text[i:] for i in range(n)), strict=False))) / num_grams


def is_stuck(text: Text) -> bool:
    return repeated_share(text) > STUCK_SHARE


def _check(texts: Sequence[Text], name: str) -> None:
    if len(texts) < 2:
        raise NotEnoughDataError(f"{name}: {len(texts)} texts; at least two are needed")


def _gram_counts(texts: Sequence[Text], max_order: int) -> list[Array]:
    """Return the counts of n-grams, shape (texts, different n-grams), for n = 1 .. `max_order`."""
    token_T = np.array([token for text in texts for token in text], dtype=np.int64)
    row_T = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    left_T = np.array([left for text in texts for left in range(len(text), 0, -1)], dtype=np.int64)
    different, token_T = np.unique(token_T, return_inverse=True)
    gram_T = np.zeros_like(token_T)
    counts = []
    for n in range(1, max_order + 1):
        starts = np.flatnonzero(left_T >= n)
        # An n-gram is an (n-1)-gram and one more token; the numbers of both are combined into one.
        joined = gram_T[starts] * len(different) + token_T[starts + n - 1]
        grams, number = np.unique(joined, return_inverse=True)
        count_RG = np.zeros((len(texts), len(grams)))
        np.add.at(count_RG, (row_T[starts], number), 1)
        counts.append(count_RG)
        gram_T = np.zeros_like(token_T)
        gram_T[starts] = number
    return counts


def _most_in_another(count_RG: Array) -> Array:
    """Return the highest count of a gram in any other text, of the same shape."""
    second_G, first_G = np.partition(count_RG, -2, axis=0)[-2:]
    most_RG = np.tile(first_G, (len(count_RG), 1))
    most_RG[count_RG.argmax(axis=0), np.arange(count_RG.shape[1])] = second_G
    return most_RG


def _brevity_penalty(length_R: Array) -> Array:
    """Return min(1, exp(1 - r / c)), with r the other length closest to c, the shorter one at a tie."""
    found = []
    for index, c in enumerate(length_R.tolist()):
        r = min(np.delete(length_R, index).tolist(), key=lambda r: (abs(r - c), r))
        found.append(1.0 if c >= r else math.exp(1 - r / c) if c > 0 else 0.0)
    return np.array(found)
