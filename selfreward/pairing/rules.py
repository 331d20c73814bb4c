"""What holds for every pair, whatever the strategy: when a prompt gives none, and why.

* Only scored responses count. Fewer than `min_scored` of them: `too_few_scored`.
* All scores equal: `tie`. A tie is never trained as a win.
* A response cut at the token limit has no end token: trained as chosen it would teach to never stop. So the chosen
  response is sought among the finished ones, even if a cut-off one scored higher; the pair stands as long as it still
  beats the rejected one, otherwise the prompt is dropped (`cut_off_chosen`). Cut-off responses may be rejected.
* Chosen and rejected with the same text (white space at the ends aside) or the same tokens: `identical_text`. No
  other response is put in: that the same text stands at both ends shows that the scores are noise here.
* Whatever order prompts, responses and judgments come in, the same pairs come out: remaining ties go to the lower id.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from selfreward.records import DroppedPrompt, Judgment, PreferencePair, Prompt, Response, Selection
from selfreward.statistics.scores import mean_scores


class DropReason(StrEnum):
    """Why a prompt gave no pair. A closed set."""

    NO_RESPONSES = "no_responses"
    TOO_FEW_SCORED = "too_few_scored"
    TIE = "tie"
    CUT_OFF_CHOSEN = "cut_off_chosen"
    IDENTICAL_TEXT = "identical_text"


@dataclass(frozen=True)
class Candidate:
    """A response with the mean of its scored draws."""

    response: Response
    score: float

    @property
    def length_tokens(self) -> int:
        """Counts the end token."""
        return len(self.response.token_ids)


# From those that may be chosen and all scored ones, neither empty, to the chosen and the rejected one. Both come in
# the order of their ids, and `max` and `min` give ties to the first.
Strategy = Callable[[Sequence[Candidate], Sequence[Candidate]], tuple[Candidate, Candidate]]


def select_pairs(
    prompts: Sequence[Prompt],
    responses: Sequence[Response],
    judgments: Sequence[Judgment],
    *,
    strategy: Strategy,
    min_scored: int,
    allow_cut_off_chosen: bool,
) -> Selection:
    """At most one pair a prompt, in the order of the prompts; every prompt is paired or dropped.

    Raises ValueError for a response to a prompt that is not among `prompts`, and when chosen and rejected were
    not sampled from the same prompt tokens.
    """
    scores = mean_scores(judgments)
    responses_of: defaultdict[str, list[Response]] = defaultdict(list)
    for response in sorted(responses, key=lambda response: response.id):
        responses_of[response.prompt_id].append(response)
    strangers = sorted(set(responses_of) - {prompt.id for prompt in prompts})
    if strangers:
        raise ValueError(f"pairing: there are responses to {strangers[:3]}, which are not among the prompts given")

    pairs: list[PreferencePair] = []
    dropped: list[DroppedPrompt] = []
    for prompt in prompts:
        outcome = _pair_or_reason(
            responses_of[prompt.id],
            scores,
            strategy=strategy,
            min_scored=min_scored,
            allow_cut_off_chosen=allow_cut_off_chosen,
        )
        if isinstance(outcome, DropReason):
            dropped.append(DroppedPrompt(prompt_id=prompt.id, reason=outcome.value))
        else:
            pairs.append(_pair(prompt, *outcome))
    return Selection(pairs=tuple(pairs), dropped=tuple(dropped))


def _pair_or_reason(
    responses: Sequence[Response],
    scores: dict[str, float],
    *,
    strategy: Strategy,
    min_scored: int,
    allow_cut_off_chosen: bool,
) -> tuple[Candidate, Candidate] | DropReason:
    if not responses:
        return DropReason.NO_RESPONSES
    scored = [Candidate(response, scores[response.id]) for response in responses if response.id in scores]
    if len(scored) < min_scored:
        return DropReason.TOO_FEW_SCORED
    lowest = min(candidate.score for candidate in scored)
    if max(candidate.score for candidate in scored) == lowest:
        return DropReason.TIE
    may_be_chosen = [
        candidate
        for candidate in scored
        if candidate.score > lowest and (allow_cut_off_chosen or candidate.response.finish_reason == "stop")
    ]
    if not may_be_chosen:
        return DropReason.CUT_OFF_CHOSEN
    chosen, rejected = strategy(may_be_chosen, scored)
    if chosen.score <= rejected.score:
        return DropReason.TIE  # scores so close that rounding made two bands overlap
    if _same(chosen.response, rejected.response):
        return DropReason.IDENTICAL_TEXT
    return chosen, rejected


def _same(chosen: Response, rejected: Response) -> bool:
    return chosen.text.strip() == rejected.text.strip() or chosen.token_ids == rejected.token_ids


def _pair(prompt: Prompt, chosen: Candidate, rejected: Candidate) -> PreferencePair:
    if chosen.response.prompt_token_ids != rejected.response.prompt_token_ids:
        raise ValueError(
            f"pairing: {chosen.response.id} and {rejected.response.id} were sampled from different prompt tokens"
        )
    return PreferencePair(
        id=f"{prompt.id}#pair",
        prompt_id=prompt.id,
        kind="response",
        chosen_id=chosen.response.id,
        rejected_id=rejected.response.id,
        prompt_token_ids=chosen.response.prompt_token_ids,
        chosen_token_ids=chosen.response.token_ids,
        rejected_token_ids=rejected.response.token_ids,
        chosen_text=chosen.response.text,
        rejected_text=rejected.response.text,
        chosen_score=chosen.score,
        rejected_score=rejected.score,
        margin=chosen.score - rejected.score,
    )
