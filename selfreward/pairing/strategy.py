"""What a strategy sees of one prompt, and what it proposes: a plain function from `Candidates` to `Proposal`s."""

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
        """Counts the end token."""
        return len(self.response.token_ids)


@dataclass(frozen=True)
class Candidates:
    """The scored responses to one prompt, each list in the order of ids: `max` and `min` give ties to the lower id.

    `scored` are the policy's. `choosable` are those of them that may be chosen: scored above the worst, and not cut
    off unless the recipe allows it. Neither is empty. `initial` are M_0's, for a strategy that needs them.
    """

    scored: Sequence[Candidate]
    choosable: Sequence[Candidate]
    initial: Sequence[Candidate] = ()


@dataclass(frozen=True)
class Proposal:
    """Two candidates that should become a pair."""

    chosen: Candidate
    rejected: Candidate


# Proposals come best first: where two contradict each other, the first one stands.
Strategy = Callable[[Candidates], Iterable[Proposal]]


def score_of(candidate: Candidate) -> float:
    """The key to sort by."""
    return candidate.score
