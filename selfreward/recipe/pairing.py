"""`pairing`: the selection of preference pairs, their labels and their weights."""

from typing import Annotated, Literal

from pydantic import Field

from selfreward.recipe.section import Section


class Pairing(Section):
    """Settings shared by all kinds.

    `min_scored`: the number of the policy's responses to a prompt that must have a score before a pair is made.
    `min_margin`: pairs whose scores differ by no more than this are dropped. `min_chosen_score`: pairs whose chosen
    response scored less are dropped, such as the winner of a vote without a majority (ScPO, 2411.04109, section 2);
    null drops none. `min_reliability`: the minimum reliability
    of the judge, over the shard and then on the prompt itself (`pairing/reliability.py`); null requires none. `label`:
    the probability that chosen is the better one: 1 (`hard`); as given by a comparing judge (`preference`, 2212.08073);
    or the rate at which this iteration's judge and the previous one agree on which of two responses of the shard is
    better (`consistency`, CREAM, 2410.12735). Pairs with a label of 0.5 or less are dropped. `weight`:
    the weight of a pair in the loss: 1; its prompt's rate of that agreement (`consistency`); or the difference of its
    scores, for judges whose scores lie in [0, 1] (`margin`, ScPO) (`pairing/labels.py`).
    """

    min_scored: int = Field(2, ge=2)
    allow_truncated_chosen: bool = False
    min_margin: float = Field(0.0, ge=0)
    min_chosen_score: float | None = None
    min_reliability: float | None = Field(None, ge=0, le=1)
    label: Literal["hard", "preference", "consistency"] = "hard"
    weight: Literal["equal", "consistency", "margin"] = "equal"


class BestVsWorst(Pairing):
    """Highest against lowest mean score; no pair when all scores are equal (2401.10020, section 2.3)."""

    kind: Literal["best_vs_worst"]


class LengthControlled(Pairing):
    """Shortest response near the highest score against longest near the lowest (Meta-Rewarding, 2407.19594, section
    2.3)."""

    kind: Literal["length_controlled"]
    rho: float = Field(0.35, ge=0, lt=0.5)


class TopK(Pairing):
    """The `k` highest against the `k` lowest: the best with the worst, the second best with the second worst, ...

    Pairs whose chosen response scored no higher are left out: n responses with distinct scores give at most n / 2
    pairs.
    """

    kind: Literal["top_k"]
    k: int = Field(2, ge=1)


class InitialRejected(Pairing):
    """The policy's best against M_0's worst response, or against its own worst if its own is lower or equal (Temporal
    Self-Rewarding, 2508.06026); in the first iteration, best against worst."""

    kind: Literal["initial_rejected"]


PairingSection = Annotated[BestVsWorst | LengthControlled | TopK | InitialRejected, Field(discriminator="kind")]
