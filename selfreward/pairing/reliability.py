"""`min_reliability`: no pairs from scores that the judge would not give again.

Reliability is the share of the differences between a prompt's responses that drawing again would reproduce, in [0, 1]
(`statistics/reliability.py`). It has to be reached by all judgments of the shard together, and then by those of the
prompt. The first number is the safer one: of prompts on which a judge draws at random many pass by chance. The second
finds the prompts on which a good judge does not tell the responses apart. Ties and margins do not show any of this: a
judge that draws at random still has a favourite.
"""

from selfreward.pairing.reasons import DropReason
from selfreward.parts import PairingInputs
from selfreward.statistics.reliability import reliability, reliability_by_prompt


def low_reliability(judged: PairingInputs, min_reliability: float | None) -> dict[str, DropReason]:
    """The prompts whose scores are not to be trusted, by id. What cannot be measured is not trusted."""
    if min_reliability is None:
        return {}
    prompt_ids = [prompt.id for prompt in judged.prompts]
    own = {response.id for response in judged.responses}  # the r that is reported is that of the policy's responses
    judgments = [judgment for judgment in judged.judgments if judgment.response_id in own]
    if reason := _reason(reliability(judgments), min_reliability):
        return dict.fromkeys(prompt_ids, reason)
    measured = reliability_by_prompt(judgments)
    reasons = {prompt_id: _reason(measured.get(prompt_id), min_reliability) for prompt_id in prompt_ids}
    return {prompt_id: reason for prompt_id, reason in reasons.items() if reason}


def _reason(measured: float | None, min_reliability: float) -> DropReason | None:
    if measured is None:
        return DropReason.RELIABILITY_NOT_MEASURED
    return DropReason.LOW_RELIABILITY if measured < min_reliability else None
