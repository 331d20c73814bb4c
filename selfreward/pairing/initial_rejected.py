"""The policy's best response against M_0's worst one to the same prompt, or against its own worst if its own is
lower or equal.

As a policy improves, its best and worst responses become similar and the update vanishes; M_0's worst stays bad.

Paper: 2508.06026, anchored rejection.
Differs: chosen is the policy's own; the paper's second half, a future model that supplies better chosen responses, is
left out. In the first iteration M_0 is the policy and gives no further responses, so this equals `best_vs_worst`.
"""

from selfreward.pairing.strategy import CandidatePair, PromptCandidates, score_of


def best_and_initial_worst(candidates: PromptCandidates) -> list[CandidatePair]:
    chosen = max(candidates.choosable, key=score_of)
    rejected = min(
        (*candidates.scored, *candidates.initial), key=score_of
    )  # a tie goes to the policy's own, which is on-policy
    return [CandidatePair(chosen, rejected)]
