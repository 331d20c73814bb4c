"""`pairing`: which responses become a preference pair, and how much the pair counts."""

from typing import Annotated, Literal

from pydantic import Field

from selfreward.recipe.section import Section


class Pairing(Section):
    """What holds for every kind.

    `min_scored`: the policy's responses to a prompt that must have a score before a pair is made of them. `min_margin`:
    a pair whose scores are not further apart is dropped. `min_reliability`: the judge's, over the shard and then on the
    prompt itself (`pairing/reliability.py`); null asks for none. `label`: chosen is the better one for certain (`hard`), with
    the probability that a comparing judge gave (`preference`, 2212.08073), or as often as this iteration's judge and
    the previous one agree on which of two responses of the shard is better (`consistency`, CREAM, 2410.12735); pairs
    with 0.5 or less are dropped (`pairing/labels.py`).
    """

    min_scored: int = Field(2, ge=2)
    allow_truncated_chosen: bool = False
    min_margin: float = Field(0.0, ge=0)
    min_reliability: float | None = Field(None, ge=0, le=1)
    label: Literal["hard", "preference", "consistency"] = "hard"
    weight: Literal["equal", "consistency"] = "equal"


class BestVsWorst(Pairing):
    """Highest against lowest mean score; where all scores are equal, no pair (2401.10020, section 2.3)."""

    kind: Literal["best_vs_worst"]


class LengthControlled(Pairing):
    """Shortest near the top against longest near the bottom (Meta-Rewarding, 2407.19594, section 2.3)."""

    kind: Literal["length_controlled"]
    rho: float = Field(0.35, ge=0, lt=0.5)


class TopK(Pairing):
    """The `k` highest against the `k` lowest: the best with the worst, the second best with the second worst, ...

    Pairs of which chosen scored no higher are left out: n responses with different scores give n / 2 pairs at most.
    """

    kind: Literal["top_k"]
    k: int = Field(2, ge=1)


class InitialRejected(Pairing):
    """The policy's best against M_0's worst, or its own worst if that is no better (Temporal Self-Rewarding,
    2508.06026); in the first iteration, best against worst."""

    kind: Literal["initial_rejected"]


PairingSection = Annotated[BestVsWorst | LengthControlled | TopK | InitialRejected, Field(discriminator="kind")]
