"""The k best responses against the k worst: the best with the worst, the second best with the second worst, ...

Every response stands in one pair at most: a pair whose chosen is not above its rejected is refused by the rules, and
from the first such pair on the two lists only repeat each other.

Paper: 2401.10020, section 2.3, is k = 1.
Differs: the further pairs are ours. They ask for no more sampling or judging, but are closer calls than the first.
"""

from selfreward.pairing.strategy import Candidates, Proposal, score_of


def best_and_worst_k(candidates: Candidates, *, k: int) -> list[Proposal]:
    best = sorted(candidates.choosable, key=score_of, reverse=True)[:k]
    worst = sorted(candidates.scored, key=score_of)[:k]
    return [Proposal(chosen, rejected) for chosen, rejected in zip(best, worst, strict=False)]
