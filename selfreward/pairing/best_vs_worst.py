"""The response with the highest mean score against the one with the lowest.

Paper: 2401.10020, section 2.3 (highest against lowest of four responses; no pair when the scores are equal).
Differs: a response cut at the token limit is not chosen, unless the recipe allows it; two equal texts give no pair;
a response without a readable verdict takes no part, where the paper does not say what becomes of it.
"""

from selfreward.pairing.strategy import Candidates, Proposal, score_of


def best_and_worst(candidates: Candidates) -> list[Proposal]:
    return [Proposal(max(candidates.choosable, key=score_of), min(candidates.scored, key=score_of))]
