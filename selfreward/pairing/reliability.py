"""`min_reliability`: no pairs from scores that the judge would not reproduce.

Reliability is the share of the score differences between a prompt's responses that further draws would reproduce, in
[0, 1] (`statistics/reliability.py`). Both the judgments of the complete shard and those of the prompt must reach it.
The first test is the safer one: many prompts of a judge that draws at random pass the second by chance. The second
finds the prompts on which a good judge does not distinguish the responses. Ties and margins reveal nothing of this: a
judge that draws at random still has a highest score.
"""

from selfreward.pairing.reasons import DropReason
from selfreward.parts import PairingInputs
from selfreward.statistics.reliability import reliability, reliability_by_prompt


def low_reliability(inputs: PairingInputs, min_reliability: float | None) -> dict[str, DropReason]:
    """Return the prompts with too low a reliability, by id, with the reason; unmeasured reliability counts as too
    low."""
    if min_reliability is None:
        return {}
    prompt_ids = [prompt.id for prompt in inputs.prompts]
    own = {response.id for response in inputs.responses}  # the reported r is over the policy's responses only
    judgments = [judgment for judgment in inputs.judgments if judgment.response_id in own]
    if reason := _reason(reliability(judgments), min_reliability):
        return dict.fromkeys(prompt_ids, reason)
    measured = reliability_by_prompt(judgments)
    reasons = {prompt_id: _reason(measured.get(prompt_id), min_reliability) for prompt_id in prompt_ids}
    return {prompt_id: reason for prompt_id, reason in reasons.items() if reason}


def _reason(measured: float | None, min_reliability: float) -> DropReason | None:
    if measured is None:
        return DropReason.RELIABILITY_NOT_MEASURED
    return DropReason.LOW_RELIABILITY if measured < min_reliability else None
