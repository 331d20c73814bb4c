"""The response with the highest mean score against the one with the lowest.

Paper: 2401.10020, section 2.3 (highest against lowest of four responses; no pair when the scores are equal).
Differs: a truncated response is not chosen, unless the recipe allows it; two equal texts give no pair; a response
without a parsed verdict is left out, a case that the paper does not specify.
"""

from selfreward.pairing.strategy import CandidatePair, PromptCandidates, score_of


def best_and_worst(candidates: PromptCandidates) -> list[CandidatePair]:
    return [CandidatePair(max(candidates.choosable, key=score_of), min(candidates.scored, key=score_of))]
