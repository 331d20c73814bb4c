"""Input and output of a pairing strategy, which is a function from `PromptCandidates` to `CandidatePair`s."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from selfreward.records import Response


@dataclass(frozen=True)
class Candidate:
    """A response with the mean of its scored draws."""

    response: Response
    score: float

    @property
    def length_tokens(self) -> int:
        """The number of tokens, including the end token."""
        return len(self.response.token_ids)


@dataclass(frozen=True)
class PromptCandidates:
    """The scored responses to one prompt, each list sorted by id, so that `max` and `min` give ties to the lower id.

    `scored` are the policy's responses. `choosable` is the subset that may be chosen: scored above the worst, and not
    truncated unless the recipe allows it. Neither is empty. `initial` are M_0's, for a strategy that needs them.
    """

    scored: Sequence[Candidate]
    choosable: Sequence[Candidate]
    initial: Sequence[Candidate] = ()


@dataclass(frozen=True)
class CandidatePair:
    """Two candidates that are proposed as a pair."""

    chosen: Candidate
    rejected: Candidate


# Pairs are proposed best first: of two that contradict each other, the first is kept.
Strategy = Callable[[PromptCandidates], Iterable[CandidatePair]]


def score_of(candidate: Candidate) -> float:
    """Return the candidate's score, as a sort key."""
    return candidate.score
