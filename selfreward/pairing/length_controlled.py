"""The shortest response near the highest score against the longest one near the lowest score.

With S_max and S_min the highest and the lowest mean score of a prompt's responses:
chosen is the shortest with a score in [(1 - rho) S_max + rho S_min, S_max],
rejected the longest with a score in [S_min, (1 - rho) S_min + rho S_max].
At rho = 0 only the responses with the highest and the lowest score are candidates.

Paper: 2407.19594, section 2.3 (rho between 0.32 and 0.4 in its four rounds).
Differs: length is counted in tokens, the unit of cost in training and sampling, and not in characters; rho
stays below 0.5, so that the bands cannot overlap; S_max is the highest score among the responses that may be chosen
(without truncated responses that is the paper's); the rules of `rules.py`.
"""

from selfreward.pairing.strategy import CandidatePair, PromptCandidates, score_of


def shortest_and_longest(candidates: PromptCandidates, *, rho: float) -> list[CandidatePair]:
    highest = max(map(score_of, candidates.choosable))
    lowest = min(map(score_of, candidates.scored))
    band = rho * (highest - lowest)
    # score >= (1 - rho) S_max + rho S_min, written so that rounding cannot exclude the score at the end of a band
    top = [candidate for candidate in candidates.choosable if highest - candidate.score <= band]
    # score <= (1 - rho) S_min + rho S_max
    bottom = [candidate for candidate in candidates.scored if candidate.score - lowest <= band]
    chosen = min(top, key=lambda candidate: (candidate.length_tokens, -candidate.score))
    rejected = min(bottom, key=lambda candidate: (-candidate.length_tokens, candidate.score))
    return [CandidatePair(chosen, rejected)]
