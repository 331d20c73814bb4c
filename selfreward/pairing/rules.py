"""Rules for every pair, independent of the strategy, which gets a prompt's candidates and proposes pairs.

* Only scored responses count, and at least `min_scored` of the policy's must be scored.
* A tie is never trained as a win: chosen is scored above rejected, by more than `min_margin`.
* A truncated response has no end token: trained as chosen it would teach the policy never to stop. So chosen is
selected
  among the finished responses, even if a truncated one scored higher; the pair is kept if chosen still scores above
  rejected. Truncated responses may be rejected.
* The same text (ignoring white space at the ends) or the same tokens never occur on both sides of a prompt's pairs. No
  other response is substituted: the same text at both ends shows that the scores are noise here.
* The judge is reliable (`reliability.py`). This is tested last, so that its reasons count what `min_reliability`
removed.
* Every prompt has pairs, or one reason from `reasons.py`: the reason of the strategy's first proposal.
* The pairs do not depend on the order of prompts, responses and judgments: remaining ties go to the lower id.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from selfreward import recipe
from selfreward.pairing.labels import Label, labeller, weigher
from selfreward.pairing.reasons import DropReason
from selfreward.pairing.reliability import low_reliability
from selfreward.pairing.strategy import Candidate, CandidatePair, PromptCandidates, Strategy, score_of
from selfreward.parts import PairingInputs
from selfreward.records import DroppedPrompt, PreferencePair, Prompt, Response, Selection
from selfreward.statistics.scores import mean_scores
from selfreward.tables import PREVIOUS_JUDGMENTS, Table


class Selector:
    """Applies the rules of this file to a strategy, which `reads` tables in addition to responses and judgments.

    The strategy proposes at most `max_pairs` pairs per prompt.
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
        """The tables that are needed in addition to prompts, responses and judgments."""
        is_compared = "consistency" in (self._section.label, self._section.weight)
        return self._reads + ((PREVIOUS_JUDGMENTS,) if is_compared else ())

    def max_pairs(self, num_responses: int) -> int:
        """Return the maximum number of pairs per prompt; no response is in two pairs."""
        return min(self._max_pairs, num_responses // 2)

    def select(self, inputs: PairingInputs) -> Selection:
        """Return the pairs in the order of the prompts, those of one prompt in the strategy's order.

        Raises ValueError for responses that do not belong to the prompts or share an id, and for a strategy that
        chooses a response that may not be chosen.
        """
        _refuse_shared_ids(inputs)
        responses_of = _by_prompt(inputs.responses, inputs.prompts)
        initial_of = _by_prompt(inputs.initial_responses, inputs.prompts)
        scores = mean_scores(inputs.judgments)
        label = labeller(self._section.label, inputs)
        weight_of = weigher(self._section.weight, inputs)
        reasons = low_reliability(inputs, self._section.min_reliability)

        pairs: list[PreferencePair] = []
        dropped: list[DroppedPrompt] = []
        for prompt in inputs.prompts:
            found = self._candidates(responses_of[prompt.id], initial_of[prompt.id], scores)
            outcome = self._pairs(prompt, found, label) if isinstance(found, PromptCandidates) else found
            if not isinstance(outcome, DropReason):
                outcome = reasons.get(prompt.id, outcome)
            if isinstance(outcome, DropReason):
                dropped.append(DroppedPrompt(prompt_id=prompt.id, reason=outcome.value))
            else:
                pairs += [replace(pair, weight=weight_of(pair)) for pair in outcome]
        return Selection(pairs=tuple(pairs), dropped=tuple(dropped))

    def _candidates(
        self, responses: Sequence[Response], initial_responses: Sequence[Response], scores: dict[str, float]
    ) -> PromptCandidates | DropReason:
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
        return PromptCandidates(scored, choosable, initial) if choosable else DropReason.TRUNCATED_CHOSEN

    def _pairs(self, prompt: Prompt, candidates: PromptCandidates, label: Label) -> list[PreferencePair] | DropReason:
        """Return the accepted pairs; ids number all proposals, so that a pair's id does not depend on the others."""
        pairs, reasons, accepted = [], [], list[CandidatePair]()
        for number, candidate_pair in enumerate(self._strategy(candidates), start=1):
            _refuse_impossible(candidate_pair, candidates)
            found = self._reason_against(candidate_pair, accepted) or label(candidate_pair)
            if isinstance(found, DropReason):
                reasons.append(found)
            else:
                accepted.append(candidate_pair)
                pairs.append(_pair(prompt, number, candidate_pair, label=found))
        return pairs or next(iter(reasons), DropReason.NOTHING_PROPOSED)

    def _reason_against(self, candidate_pair: CandidatePair, accepted: Sequence[CandidatePair]) -> DropReason | None:
        minimum, margin = self._section.min_margin, candidate_pair.chosen.score - candidate_pair.rejected.score
        least = self._section.min_chosen_score
        if margin <= 0:
            return DropReason.TIE
        if least is not None and candidate_pair.chosen.score < least:
            return DropReason.LOW_CHOSEN_SCORE
        if margin <= minimum or math.isclose(margin, minimum):  # 14/3 - 11/3 differs from 1 by rounding
            return DropReason.SMALL_MARGIN
        all_chosen = [other.chosen.response for other in (*accepted, candidate_pair)]
        all_rejected = [other.rejected.response for other in (*accepted, candidate_pair)]
        if any(_same(chosen, rejected) for chosen in all_chosen for rejected in all_rejected):
            return DropReason.IDENTICAL_TEXT
        return None


def _same(chosen: Response, rejected: Response) -> bool:
    return chosen.text.strip() == rejected.text.strip() or chosen.token_ids == rejected.token_ids


def _by_prompt(responses: Sequence[Response], prompts: Sequence[Prompt]) -> defaultdict[str, list[Response]]:
    """Return each prompt's responses, sorted by id."""
    responses_of: defaultdict[str, list[Response]] = defaultdict(list)
    for response in sorted(responses, key=lambda response: response.id):
        responses_of[response.prompt_id].append(response)
    if unknown_ids := sorted(responses_of.keys() - {prompt.id for prompt in prompts}):
        raise ValueError(f"pairing: there are responses to {unknown_ids[:3]}, which are not among the given prompts")
    return responses_of


def _refuse_shared_ids(inputs: PairingInputs) -> None:
    """Refuse an id shared by two responses, since scores are looked up by id."""
    ids = {response.id for response in inputs.responses}
    if shared := sorted(ids & {response.id for response in inputs.initial_responses}):
        raise ValueError(f"pairing: {shared[:3]} are ids of the policy's responses and of M_0's; they must differ")


def _refuse_impossible(candidate_pair: CandidatePair, candidates: PromptCandidates) -> None:
    chosen, rejected = candidate_pair.chosen.response, candidate_pair.rejected.response
    if candidate_pair.chosen not in candidates.choosable:
        raise ValueError(f"pairing: the strategy chose {chosen.id}, which is not among the candidates' `choosable`")
    if chosen.prompt_token_ids != rejected.prompt_token_ids:
        raise ValueError(f"pairing: {chosen.id} and {rejected.id} were sampled from different prompt tokens")


def _pair(prompt: Prompt, number: int, candidate_pair: CandidatePair, *, label: float) -> PreferencePair:
    chosen, rejected = candidate_pair.chosen, candidate_pair.rejected
    return PreferencePair(
        id=f"{prompt.id}#pair" if number == 1 else f"{prompt.id}#pair-{number}",
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
