"""A pair's `label`: the probability that chosen is the better one, always above 0.5.

`hard`: 1.

`preference`: the probability that a comparing judge gave to chosen against rejected, over all orders and draws. Where
that is 0.5 or less, the mean scores and the direct comparison contradict each other. That happens by noise and in
preference cycles, and in both cases the best estimate is near 0.5, where a pair contributes almost nothing. Training on
it would push rejected above the chosen response with the higher score, so the pair is dropped. As a consequence of this
selection the remaining labels are slightly too high.
Paper: 2212.08073, section 4.1 (normalised probabilities as targets of its preference model).
Differs: targets of DPO, without a preference model in between; pairs that contradict their scores are dropped.

`consistency`: C = (tau + 1) / 2, the share of pairs of responses that this judge and the previous iteration's judge put
in the same order; tau is Kendall's over a prompt's responses, and its mean over the shard gives one label for all its
pairs. A label for each prompt would be noise: with five responses, chance alone spreads tau by 0.41, as much as the
paper observes between prompts (0.38 to 0.41 in self-rewarding without it). At C of 0.5 or less the judges agree no
better than chance, and no pair of the shard is trained on. In the first iteration there is no previous judge, and C is
1. Paper: CREAM (2410.12735), its consistency rate, where judges are implicit rewards. Differs: C is computed per shard,
not over the complete iteration; any judge with scores; a C of 0.5 or less is not trained on.

`weight: consistency`: a pair is weighted by (tau + 1) / 2 of its own prompt, in addition to any label: here the noise
of a prompt's tau only adds noise to a weight. 1 where there is no tau. Differs: the paper has one C for all pairs.

`weight: margin`: a pair is weighted by the difference of its scores, which must lie in [0, 1], such as shares of votes.
Paper: 2411.04109 (ScPO), section 2.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Literal, assert_never

from selfreward.pairing.reasons import DropReason
from selfreward.pairing.strategy import CandidatePair
from selfreward.parts import PairingInputs
from selfreward.records import Judgment, PreferencePair
from selfreward.statistics.kendall import kendall_tau
from selfreward.statistics.scores import mean_scores

Label = Callable[[CandidatePair], float | DropReason]
Weight = Callable[[PreferencePair], float]


def labeller(kind: Literal["hard", "preference", "consistency"], inputs: PairingInputs) -> Label:
    """Return a function from a pair to its label in (0.5, 1], or to the reason why it should not be trained on."""
    match kind:
        case "hard":
            return lambda pair: 1.0
        case "preference":
            return _preference(inputs.judgments)
        case "consistency":
            label = _consistency(inputs)
            return lambda pair: label
        case _:
            assert_never(kind)


def _preference(judgments: Iterable[Judgment]) -> Label:
    compared: defaultdict[tuple[str, str], list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        if judgment.score is not None and judgment.other_id and not judgment.part:
            compared[judgment.response_id, judgment.other_id].append(judgment)

    def label(pair: CandidatePair) -> float | DropReason:
        chosen, rejected = pair.chosen.response.id, pair.rejected.response.id
        if (chosen, rejected) not in compared:
            return DropReason.NO_PREFERENCE
        preference = mean_scores(compared[chosen, rejected])[chosen]
        return preference if preference > 0.5 else DropReason.PREFERENCE_DISAGREES

    return label


def weigher(kind: Literal["equal", "consistency", "margin"], inputs: PairingInputs) -> Weight:
    """Return a function from a pair to its weight in the loss."""
    match kind:
        case "equal":
            return lambda pair: 1.0
        case "consistency":
            taus = _taus(inputs)
            return lambda pair: (taus.get(pair.prompt_id, 1.0) + 1) / 2
        case "margin":
            return lambda pair: pair.margin
        case _:
            assert_never(kind)


def _consistency(inputs: PairingInputs) -> float | DropReason:
    if not inputs.previous_judgments:
        return 1.0
    taus = _taus(inputs)
    if not taus:
        return DropReason.CONSISTENCY_NOT_MEASURED
    consistency = (fmean(taus.values()) + 1) / 2
    return consistency if consistency > 0.5 else DropReason.JUDGES_DISAGREE


def _taus(inputs: PairingInputs) -> dict[str, float]:
    """Return Kendall's tau of this judge and the previous one, by prompt id, where both rank the policy's responses."""
    now, before = mean_scores(inputs.judgments), mean_scores(inputs.previous_judgments)
    ranked: defaultdict[str, list[str]] = defaultdict(list)
    for response in inputs.responses:
        if response.id in now and response.id in before:
            ranked[response.prompt_id].append(response.id)
    measured = {p: kendall_tau([now[id] for id in ids], [before[id] for id in ids]) for p, ids in ranked.items()}
    return {prompt_id: tau for prompt_id, tau in measured.items() if tau is not None}
