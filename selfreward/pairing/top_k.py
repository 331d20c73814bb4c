"""The k best responses against the k worst: the best with the worst, the second best with the second worst, ...

Every response is in at most one pair: a pair whose chosen is not scored above its rejected is refused by the rules, and
from the first such pair on the two lists only contain the same responses again.

Paper: 2401.10020, section 2.3, is k = 1.
Differs: the further pairs are ours. They need no more sampling or judging, but have smaller margins than the first.
"""

from selfreward.pairing.strategy import CandidatePair, PromptCandidates, score_of


def best_and_worst_k(candidates: PromptCandidates, *, k: int) -> list[CandidatePair]:
    best = sorted(candidates.choosable, key=score_of, reverse=True)[:k]
    worst = sorted(candidates.scored, key=score_of)[:k]
    return [CandidatePair(chosen, rejected) for chosen, rejected in zip(best, worst, strict=False)]
