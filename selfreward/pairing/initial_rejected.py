"""The policy's best response against M_0's worst one to the same prompt, or its own worst where that is no better.

As a policy improves, its best and its worst response grow alike and the update fades; M_0's worst stays bad.

Paper: 2508.06026, anchored rejection.
Differs: chosen is the policy's own; the paper's second half, a model trained ahead to supply better ones, is left
out. In the first iteration M_0 is the policy and gives no further responses: there it is `best_vs_worst`.
"""

from selfreward.pairing.strategy import Candidates, Proposal, score_of


def best_and_initial_worst(candidates: Candidates) -> list[Proposal]:
    chosen = max(candidates.choosable, key=score_of)
    rejected = min((*candidates.scored, *candidates.initial), key=score_of)  # at a tie the policy's own, on-policy
    return [Proposal(chosen, rejected)]
