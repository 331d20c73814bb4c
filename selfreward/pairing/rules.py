"""What holds for every pair, whatever the strategy: a prompt's candidates go to it, and what it proposes is tested.

* Only scored responses count, and `min_scored` of the policy's must be.
* A tie is never trained as a win: chosen is scored above rejected, by more than `min_margin`.
* A response cut at the token limit has no end token: trained as chosen it would teach to never stop. So the chosen
  response is sought among the finished ones, even if a cut-off one scored higher; the pair stands as long as it still
  beats the rejected one. Cut-off responses may be rejected.
* The same text (white space at the ends aside) or the same tokens never stand on both sides of a prompt's pairs. No
  other response is put in: that the same text stands at both ends shows that the scores are noise here.
* The judge repeats itself (`trust.py`), asked last: so the count of its reasons is what `min_reliability` cost.
* Every prompt has pairs, or one reason from `reasons.py`: that of the strategy's first proposal.
* Whatever order prompts, responses and judgments come in, the same pairs come out: remaining ties go to the lower id.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfreward import recipe
from selfreward.pairing.labels import Label, labeller, weights
from selfreward.pairing.reasons import DropReason
from selfreward.pairing.reliability import low_reliability
from selfreward.pairing.strategy import Candidate, Candidates, Proposal, Strategy, score_of
from selfreward.parts import PairingInputs
from selfreward.records import DroppedPrompt, PreferencePair, Prompt, Response, Selection
from selfreward.statistics.scores import mean_scores
from selfreward.tables import PREVIOUS_JUDGMENTS, Table


class Selector:
    """The rules of this file around a strategy, which `reads` tables beside responses and judgments.

    It proposes `max_pairs` pairs of a prompt at most.
    """

    def __init__(
        self, section: recipe.Pairing, strategy: Strategy, *, reads: Sequence[Table[Any]] = (), max_pairs: int = 1
    ) -> None:
        self._section = section
        self._strategy = strategy
        self._reads = tuple(reads)
        self._max_pairs = max_pairs

    @property
    def reads(self) -> tuple[Table[Any], ...]:
        """What pairs are made of beside prompts, responses and judgments."""
        is_compared = "consistency" in (self._section.label, self._section.weight)
        return self._reads + ((PREVIOUS_JUDGMENTS,) if is_compared else ())

    def most(self, num_responses: int) -> int:
        """So many pairs of a prompt at most: no response stands in two."""
        return min(self._max_pairs, num_responses // 2)

    def select(self, judged: PairingInputs) -> Selection:
        """Pairs in the order of the prompts, a prompt's in that of its strategy.

        Raises ValueError for responses that do not belong to the prompts or are not told apart by their ids, and for
        a strategy that proposes what may not be chosen.
        """
        _refuse_shared_ids(judged)
        responses_of = _by_prompt(judged.responses, judged.prompts)
        initial_of = _by_prompt(judged.initial_responses, judged.prompts)
        scores = mean_scores(judged.judgments)
        label = labeller(self._section.label, judged)
        weight_of = weights(self._section.weight, judged)
        reasons = low_reliability(judged, self._section.min_reliability)

        pairs: list[PreferencePair] = []
        dropped: list[DroppedPrompt] = []
        for prompt in judged.prompts:
            found = self._candidates(responses_of[prompt.id], initial_of[prompt.id], scores)
            outcome = self._pairs(prompt, found, label) if isinstance(found, Candidates) else found
            if not isinstance(outcome, DropReason):
                outcome = reasons.get(prompt.id, outcome)
            if isinstance(outcome, DropReason):
                dropped.append(DroppedPrompt(prompt_id=prompt.id, reason=outcome.value))
            else:
                pairs += [replace(pair, weight=weight_of.get(prompt.id, 1.0)) for pair in outcome]
        return Selection(pairs=tuple(pairs), dropped=tuple(dropped))

    def _candidates(
        self, responses: Sequence[Response], initial_responses: Sequence[Response], scores: dict[str, float]
    ) -> Candidates | DropReason:
        scored = [Candidate(response, scores[response.id]) for response in responses if response.id in scores]
        initial = [Candidate(response, scores[response.id]) for response in initial_responses if response.id in scores]
        if not responses:
            return DropReason.NO_RESPONSES
        if len(scored) < self._section.min_scored:
            return DropReason.TOO_FEW_SCORED
        lowest = min(map(score_of, (*scored, *initial)))
        above = [candidate for candidate in scored if candidate.score > lowest]
        if not above:
            return DropReason.TIE
        allowed = self._section.allow_truncated_chosen
        choosable = [candidate for candidate in above if allowed or candidate.response.finish_reason == "stop"]
        return Candidates(scored, choosable, initial) if choosable else DropReason.CUT_OFF_CHOSEN

    def _pairs(self, prompt: Prompt, candidates: Candidates, label: Label) -> list[PreferencePair] | DropReason:
        """Numbered by the place among the strategy's proposals: whether others stand changes no pair's id."""
        pairs, reasons, standing = [], [], list[Proposal]()
        for place, proposal in enumerate(self._strategy(candidates), start=1):
            _refuse_impossible(proposal, candidates)
            found = self._reason_against(proposal, standing) or label(proposal)
            if isinstance(found, DropReason):
                reasons.append(found)
            else:
                standing.append(proposal)
                pairs.append(_pair(prompt, place, proposal, label=found))
        return pairs or next(iter(reasons), DropReason.NOTHING_PROPOSED)

    def _reason_against(self, proposal: Proposal, standing: Sequence[Proposal]) -> DropReason | None:
        least, margin = self._section.min_margin, proposal.chosen.score - proposal.rejected.score
        if margin <= 0:
            return DropReason.TIE
        if margin <= least or math.isclose(margin, least):  # 14/3 - 11/3 is 1 but for the rounding
            return DropReason.SMALL_MARGIN
        all_chosen = [other.chosen.response for other in (*standing, proposal)]
        all_rejected = [other.rejected.response for other in (*standing, proposal)]
        if any(_same(chosen, rejected) for chosen in all_chosen for rejected in all_rejected):
            return DropReason.IDENTICAL_TEXT
        return None


def _same(chosen: Response, rejected: Response) -> bool:
    return chosen.text.strip() == rejected.text.strip() or chosen.token_ids == rejected.token_ids


def _by_prompt(responses: Sequence[Response], prompts: Sequence[Prompt]) -> defaultdict[str, list[Response]]:
    """Each prompt's in the order of their ids."""
    responses_of: defaultdict[str, list[Response]] = defaultdict(list)
    for response in sorted(responses, key=lambda response: response.id):
        responses_of[response.prompt_id].append(response)
    if unknown_ids := sorted(responses_of.keys() - {prompt.id for prompt in prompts}):
        raise ValueError(f"pairing: there are responses to {unknown_ids[:3]}, which are not among the prompts given")
    return responses_of


def _refuse_shared_ids(judged: PairingInputs) -> None:
    """Scores are found by the id of the response."""
    ids = {response.id for response in judged.responses}
    if shared := sorted(ids & {response.id for response in judged.initial_responses}):
        raise ValueError(f"pairing: {shared[:3]} are ids of the policy's responses and of M_0's; they must differ")


def _refuse_impossible(proposal: Proposal, candidates: Candidates) -> None:
    chosen, rejected = proposal.chosen.response, proposal.rejected.response
    if proposal.chosen not in candidates.choosable:
        raise ValueError(f"pairing: the strategy chose {chosen.id}, which is not among the candidates' `choosable`")
    if chosen.prompt_token_ids != rejected.prompt_token_ids:
        raise ValueError(f"pairing: {chosen.id} and {rejected.id} were sampled from different prompt tokens")


def _pair(prompt: Prompt, place: int, proposal: Proposal, *, label: float) -> PreferencePair:
    chosen, rejected = proposal.chosen, proposal.rejected
    return PreferencePair(
        id=f"{prompt.id}#pair" if place == 1 else f"{prompt.id}#pair-{place}",
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
        label=label,
    )
