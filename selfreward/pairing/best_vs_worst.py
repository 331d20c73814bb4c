"""The response with the highest mean score against the one with the lowest.

Paper: 2401.10020, section 2.3 (highest against lowest of four responses; no pair when the scores are equal).
Differs: a response cut at the token limit is not chosen, unless the recipe allows it; two equal texts give no pair;
a response without a readable verdict takes no part, where the paper does not say what becomes of it.
"""

from collections.abc import Sequence

from selfreward import recipe
from selfreward.pairing.rules import Candidate, select_pairs
from selfreward.records import Judgment, Prompt, Response, Selection


class BestVsWorst:
    """`parts.PairSelector`."""

    def __init__(self, section: recipe.BestVsWorst) -> None:
        self._section = section

    def select(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], judgments: Sequence[Judgment]
    ) -> Selection:
        """One pair a prompt at most, under the rules of `rules.py`."""
        return select_pairs(
            prompts,
            responses,
            judgments,
            strategy=best_and_worst,
            min_scored=self._section.min_scored,
            allow_cut_off_chosen=self._section.allow_cut_off_chosen,
        )


def best_and_worst(may_be_chosen: Sequence[Candidate], scored: Sequence[Candidate]) -> tuple[Candidate, Candidate]:
    chosen = max(may_be_chosen, key=lambda candidate: candidate.score)
    rejected = min(scored, key=lambda candidate: candidate.score)
    return chosen, rejected
