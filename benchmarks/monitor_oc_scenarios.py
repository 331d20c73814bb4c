"""Simulated runs for `monitor_oc.py`: what each checkpoint is worth, and what held-out prompts then say of it.

An outcome is a threshold on a normal deviate, so that P(win) - P(loss) = 2 * gain and the ties have their rate, for
every scenario; the scenarios differ in how the deviates hang together. A gain against an older checkpoint is the sum
of the gains since. Draws depend on the seed, the run and what is compared, never on the order in which it is asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from selfreward.monitoring.decide import decide
from selfreward.monitoring.evidence import Evidence, Outcomes
from selfreward.recipe import MonitorSection
from selfreward.records import Decision

Array = NDArray[np.float64]
HORIZON = 8
NUM_GOLD = 400
TOKENS_PER_SD = 50.0
# The pass rate's difference has the noise sqrt(.12 / n): 12 % of the prompts are discordant.
VERIFIABLE_TIE_RATE = 0.88
CODES = {
    "anchor": 0, "self": 1, "checks": 2, "validation": 3, "second_validation": 4, "verifiable": 5,
    "quality": 6, "gold": 7,
}  # fmt: skip


def through(*gains: float) -> tuple[float, ...]:
    """One value per iteration; the last is repeated up to the horizon."""
    return gains + gains[-1:] * (HORIZON - len(gains))


def rising(first: float, last: float) -> tuple[float, ...]:
    return tuple(np.linspace(first, last, HORIZON).tolist())


@dataclass(frozen=True)
class Scenario:
    """What is true, iteration by iteration, and how it is measured.

    `gains` are the anchor's, as a win rate above 0.5 against the previous checkpoint; `self_gains` the own judge's (not
    measured when None); `pass_gains` differences of the verifiable pass rate. `document_size` prompts share a part
    `document_share` of an outcome's variance; `by_document` averages them first. `checkpoint_share` of the variance
    belongs to the responses of the two checkpoints, so that comparisons with a common checkpoint depend on each other.
    `random_verdicts` are shares of the anchor's verdicts that look at nothing. `longer` is the mean length difference,
    in standard deviations of it, and `length_effect` what a standard deviation adds to the deviate; gains are those at
    equal length. `lost_wins` and `lost_losses`: the shares of the anchor's wins and losses that are unscored.
    `gold` is the accuracy of each iteration's judge on 400 pairs, `gold_discordance` how often two equally accurate
    versions differ. Without `stops` the rule only reports, and all iterations are seen.
    """

    name: str
    gains: tuple[float, ...]
    self_gains: tuple[float, ...] | None = None
    pass_gains: tuple[float, ...] = through(0.0)
    n: int = 800
    tie_rates: tuple[float, ...] = through(0.4)
    delta: float = 0.05
    second_validation: bool = False
    document_size: int = 1
    document_share: float = 0.0
    by_document: bool = False
    checkpoint_share: float = 0.0
    random_verdicts: tuple[float, ...] = through(0.0)
    longer: tuple[float, ...] | None = None
    length_effect: float = 0.0
    length_adjusted: bool = True
    lost_wins: float = 0.0
    lost_losses: float = 0.0
    gold: tuple[float, ...] | None = None
    gold_discordance: float = 0.1
    num_verifiable: int = 541
    stops: bool = True

    @cached_property
    def settings(self) -> MonitorSection:
        return MonitorSection(
            mode="enforce" if self.stops else "report_only",
            horizon=HORIZON,
            delta=self.delta,
            length_adjusted=self.length_adjusted,
        )

    @property
    def last_useful(self) -> int:
        """The iteration after which nothing is gained any more; the horizon when every iteration gains something."""
        return max((t for t, gain in enumerate(self.gains, 1) if gain > 0), default=0)


@dataclass(frozen=True)
class World:
    """One simulated run of a scenario."""

    scenario: Scenario
    seed: int
    number: int

    def evidence(self, t: int, *, best: int, with_second_validation: bool = False) -> Evidence:
        """What is known of M_t: against M_{t-1}, and against `best` where that is another checkpoint."""
        s = self.scenario
        judges = ("anchor",) if s.self_gains is None else ("anchor", "self")
        outcomes = {}
        for against in sorted({t - 1, best}):
            for by in judges:
                for where in ("validation", "second_validation") if with_second_validation else ("validation",):
                    outcomes[by, where, against] = self.outcomes(by, where, t, against)
            if s.num_verifiable:
                outcomes["checks", "verifiable", against] = self.passes(t, against)
        if s.gold is not None:
            outcomes["self", "gold", -1] = self.gold_outcomes(t)
        num_second_validation = s.n if s.second_validation else 0
        return Evidence(
            t,
            t - 1,
            outcomes,
            num_second_validation=num_second_validation,
            anchor_examined=True,
            position_consistency=0.85,
        )

    def outcomes(self, by: str, where: str, t: int, against: int) -> Outcomes:
        s, rng = self.scenario, self._rng(by, where, t, against)
        gains = s.self_gains if by == "self" and s.self_gains is not None else s.gains
        deviates = self._deviates(rng, s.n, where, t, against)
        lengths = None
        if s.longer is not None:
            # The judges see the same responses, so their lengths have draws of their own.
            sd_lengths = self._rng("quality", where, t, against).standard_normal(s.n) + sum(s.longer[against:t])
            deviates, lengths = deviates + s.length_effect * sd_lengths, np.round(TOKENS_PER_SD * sd_lengths)
        values = _thresholded(deviates, gain=sum(gains[against:t]), tie_rate=s.tie_rates[t - 1])
        if by == "anchor" and s.random_verdicts[t - 1] > 0:
            blind = _thresholded(rng.standard_normal(s.n), gain=0.0, tie_rate=s.tie_rates[t - 1])
            values = np.where(rng.random(s.n) < s.random_verdicts[t - 1], blind, values)
        if by == "anchor" and (s.lost_wins or s.lost_losses):
            lost = rng.random(s.n) < np.where(values == 1, s.lost_wins, np.where(values == 0, s.lost_losses, 0.0))
            return Outcomes(_ids(where, int((~lost).sum())), values[~lost], num_unscored=int(lost.sum()))
        if s.by_document:
            values = values.reshape(-1, s.document_size).mean(axis=1)
        return Outcomes(_ids(where, len(values)), values, length_deltas_tokens=lengths)

    def passes(self, t: int, against: int) -> Outcomes:
        """A pass rate's difference of d is a mean outcome of 0.5 + d / 2."""
        s = self.scenario
        rng = self._rng("checks", "verifiable", t, against)
        deviates = self._deviates(rng, s.num_verifiable, "verifiable", t, against)
        values = _thresholded(deviates, gain=sum(s.pass_gains[against:t]) / 2, tie_rate=VERIFIABLE_TIE_RATE)
        return Outcomes(_ids("verifiable", s.num_verifiable), values)

    def gold_outcomes(self, t: int) -> Outcomes:
        """Right or wrong on the same pairs in every iteration; versions of the judge agree more than by chance."""
        s = self.scenario
        assert s.gold is not None
        shared = shared_variance(s.gold[0], s.gold_discordance)
        pairs = self._rng("self", "gold", 0, 0).standard_normal(NUM_GOLD)
        own = self._rng("self", "gold", t, 0).standard_normal(NUM_GOLD)
        right = math.sqrt(shared) * pairs + math.sqrt(1 - shared) * own < NormalDist().inv_cdf(s.gold[t - 1])
        return Outcomes(_ids("gold", NUM_GOLD), right.astype(np.float64))

    def _deviates(self, rng: np.random.Generator, n: int, where: str, t: int, against: int) -> Array:
        """Standard normal, shape (n,)."""
        s = self.scenario
        own = rng.standard_normal(n)
        if s.checkpoint_share:
            ours, theirs = (self._rng("quality", where, k, k).standard_normal(n) for k in (t, against))
            of_responses = (ours - theirs) / math.sqrt(2)
            return math.sqrt(s.checkpoint_share) * of_responses + math.sqrt(1 - s.checkpoint_share) * own
        if s.document_share and where != "verifiable":
            of_document = np.repeat(rng.standard_normal(n // s.document_size), s.document_size)
            return math.sqrt(s.document_share) * of_document + math.sqrt(1 - s.document_share) * own
        return own

    def _rng(self, by: str, where: str, t: int, against: int) -> np.random.Generator:
        key = [self.seed, self.number, CODES[by], CODES[where], t, against]
        return np.random.default_rng([*key, *self.scenario.name.encode()])


def stepped(world: World) -> list[Decision]:
    """The decisions of one run, up to the one that stops it. The second validation set is evaluated where the decision
    asks for it."""
    records: list[Evidence] = []
    decided: list[Decision] = []
    for t in range(1, HORIZON + 1):
        best = decided[-1].best_iteration if decided else 0
        records.append(world.evidence(t, best=best))
        decision = decide(records, world.scenario.settings, decided=decided)
        if decision.wants_second_validation:
            records[-1] = world.evidence(t, best=best, with_second_validation=True)
            decision = decide(records, world.scenario.settings, decided=decided)
        decided.append(decision)
        if decision.stops:
            break
    return decided


def _thresholded(deviates: Array, *, gain: float, tie_rate: float) -> Array:
    """1, 0.5 or 0 for each; a gain that the ties leave no room for is cut."""
    loses_below, wins_above = _thresholds(round(gain, 9), tie_rate)
    return np.asarray((deviates > wins_above) * 0.5 - (deviates < loses_below) * 0.5 + 0.5)


@lru_cache(maxsize=4096)
def _thresholds(gain: float, tie_rate: float) -> tuple[float, float]:
    room = (1 - tie_rate) / 2
    gain = max(-0.999 * room, min(0.999 * room, gain))
    return NormalDist().inv_cdf(room - gain), NormalDist().inv_cdf(1 - room - gain)


@lru_cache(maxsize=64)
def shared_variance(accuracy: float, discordance: float) -> float:
    """The correlation of two normal deviates, both below the same limit at this rate, that differ at this rate."""
    limit = NormalDist().inv_cdf(accuracy)
    grid = np.linspace(-7, 7, 1401)
    density = np.exp(-(grid**2) / 2)
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        below = _normal_cdf((limit - math.sqrt(middle) * grid) / math.sqrt(1 - middle))
        differ = 2 * float(np.average(below * (1 - below), weights=density))
        low, high = (middle, high) if differ > discordance else (low, middle)
    return low


def _normal_cdf(values: Sequence[float] | Array) -> Array:
    return np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in values])


@lru_cache(maxsize=1024)
def _ids(where: str, n: int) -> tuple[str, ...]:
    return tuple(f"{where}-{i}" for i in range(n))
