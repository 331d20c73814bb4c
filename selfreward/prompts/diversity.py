"""Diversity of a set of prompts: distinct-3, and ROUGE-L to the nearest other prompt.

ROUGE-L F of two texts is the harmonic mean of LCS / words of one and LCS / words of the other, where LCS is the
longest common subsequence of their words (Lin, 2004). Self-Instruct (arXiv 2212.10560) keeps a prompt below 0.7.
Differs: our own word splitting and no stemming; the length of the LCS is computed with Hyyro's bit vectors (2004),
because every pair of the set is compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selfreward.prompts.normalise import turns_text, words
from selfreward.records import Prompt


@dataclass(frozen=True)
class Diversity:
    """Diversity metrics in [0, 1]. `nearest_rouge_l_*`: mean and maximum over prompts of ROUGE-L F to the nearest
    one."""

    num_prompts: int
    distinct_3_rate: float
    nearest_rouge_l_mean: float
    nearest_rouge_l_max: float
    nearest_pair: tuple[str, str] | None


def rouge_l(first: Sequence[str], second: Sequence[str]) -> float:
    """Return ROUGE-L F of two lists of words; 0.0 when one is empty."""
    return _rouge_l(_positions(first), len(first), second)


def diversity(prompts: Sequence[Prompt], *, max_words: int | None = None) -> Diversity:
    """Compute the diversity over all pairs, a second for 256 prompts of 25 words.

    `max_words` truncates long prompts for ROUGE-L only.
    """
    words_P = [words(turns_text(prompt)) for prompt in prompts]
    trigrams = [tuple(text[i : i + 3]) for text in words_P for i in range(len(text) - 2)]
    truncated_P = [text[:max_words] for text in words_P]
    positions_P = [_positions(text) for text in truncated_P]
    nearest_P = [(0.0, i) for i in range(len(prompts))]
    for i, first in enumerate(truncated_P):
        for j in range(i):
            f = _rouge_l(positions_P[i], len(first), truncated_P[j])
            nearest_P[i] = max(nearest_P[i], (f, j))
            nearest_P[j] = max(nearest_P[j], (f, i))
    worst = max(range(len(prompts)), key=lambda i: nearest_P[i][0], default=None)
    return Diversity(
        num_prompts=len(prompts),
        distinct_3_rate=len(set(trigrams)) / len(trigrams) if trigrams else 0.0,
        nearest_rouge_l_mean=sum(f for f, _ in nearest_P) / len(prompts) if prompts else 0.0,
        nearest_rouge_l_max=nearest_P[worst][0] if worst is not None else 0.0,
        nearest_pair=(prompts[worst].id, prompts[nearest_P[worst][1]].id)
        if worst is not None and nearest_P[worst][0] > 0
        else None,
    )


def _positions(text: Sequence[str]) -> Mapping[str, int]:
    """Return for each word a bit vector of its positions."""
    positions: dict[str, int] = {}
    for position, word in enumerate(text):
        positions[word] = positions.get(word, 0) | 1 << position
    return positions


def _rouge_l(positions: Mapping[str, int], length: int, other: Sequence[str]) -> float:
    full = (1 << length) - 1
    vector = full
    for word in other:
        # A zero bit at position p: the longest common subsequence grows at word p.
        matches = vector & positions.get(word, 0)
        vector = ((vector + matches) | (vector - matches)) & full
    lcs = length - vector.bit_count()
    return 2 * lcs / (length + len(other)) if lcs else 0.0  # = 2PR/(P+R) with P = lcs/length, R = lcs/len(other)
