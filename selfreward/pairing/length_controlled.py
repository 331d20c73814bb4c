"""The shortest response near the top against the longest one near the bottom.

With S_max and S_min the highest and the lowest mean score of a prompt's responses:
chosen is the shortest with a score in [(1 - rho) S_max + rho S_min, S_max],
rejected the longest with a score in [S_min, (1 - rho) S_min + rho S_max].
At rho = 0 only responses at the very ends take part.

Paper: 2407.19594, section 2.3 (rho between 0.32 and 0.4 in its four rounds).
Differs: length is counted in tokens, which is what training and sampling pay for, and not in characters; rho
stays below 0.5, so that the bands cannot overlap; S_max is the highest score among the responses that may be chosen
(without cut-off responses that is the paper's); the rules of `rules.py`.
"""

from collections.abc import Sequence

from selfreward import recipe
from selfreward.pairing.rules import Candidate, select_pairs
from selfreward.records import Judgment, Prompt, Response, Selection


class LengthControlled:
    """`parts.PairSelector`."""

    def __init__(self, section: recipe.LengthControlled) -> None:
        self._section = section

    def select(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], judgments: Sequence[Judgment]
    ) -> Selection:
        """One pair a prompt at most, under the rules of `rules.py`."""
        return select_pairs(
            prompts,
            responses,
            judgments,
            strategy=self._shortest_and_longest,
            min_scored=self._section.min_scored,
            allow_cut_off_chosen=self._section.allow_cut_off_chosen,
        )

    def _shortest_and_longest(
        self, may_be_chosen: Sequence[Candidate], scored: Sequence[Candidate]
    ) -> tuple[Candidate, Candidate]:
        highest = max(candidate.score for candidate in may_be_chosen)
        lowest = min(candidate.score for candidate in scored)
        band = self._section.rho * (highest - lowest)
        # score >= (1 - rho) S_max + rho S_min, written so that rounding cannot push a band past the score at its end
        top = [candidate for candidate in may_be_chosen if highest - candidate.score <= band]
        # score <= (1 - rho) S_min + rho S_max
        bottom = [candidate for candidate in scored if candidate.score - lowest <= band]
        chosen = min(top, key=lambda candidate: (candidate.length_tokens, -candidate.score))
        rejected = min(bottom, key=lambda candidate: (-candidate.length_tokens, candidate.score))
        return chosen, rejected
