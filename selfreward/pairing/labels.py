"""A pair's `label`: the probability that chosen is the better one, always above 0.5.

`hard`: 1, for certain.

`preference`: the probability that a comparing judge gave to chosen against rejected, over all orders and draws. Where
that is 0.5 or less, the mean scores and the direct comparison contradict each other: that happens by noise and in
cycles, and either way the best estimate lies near 0.5, where a pair teaches next to nothing. Training on it would push
rejected above the chosen of higher score, so the pair is dropped. The price: the labels that are left are a little too
high, as everything is that was selected for being high.
Paper: 2212.08073, section 4.1 (normalised probabilities as targets of its preference model).
Differs: targets of DPO, without a preference model in between; pairs that contradict their scores are dropped.

`consistency`: C = (tau + 1) / 2, the share of pairs of responses that this judge and the previous iteration's put in
the same order; tau is Kendall's over a prompt's responses, and its mean over the shard is one label for all its pairs.
A label for each prompt would be noise: with five responses, chance alone spreads tau by 0.41, as much as the paper
observes between prompts (0.38 to 0.41 in self-rewarding without it). At C of 0.5 or less the judges agree no better
than chance, and no pair of the shard is trained on. In the first iteration there is no judge before, and C is 1.
Paper: CREAM (2410.12735), its consistency rate, where judges are implicit rewards.
Differs: C is of a shard, not of the whole iteration; any judge with scores; C of 0.5 or less is not trained on.

`weight: consistency`: a pair counts (tau + 1) / 2 of its own prompt, beside any label: there the noise of a prompt's
tau is only noise of a weight. 1 where there is no tau.
Differs: the paper has one C for all.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Literal, assert_never

from selfreward.pairing.reasons import DropReason
from selfreward.pairing.strategy import Proposal
from selfreward.parts import PairingInputs
from selfreward.records import Judgment
from selfreward.statistics.kendall import kendall_tau
from selfreward.statistics.scores import mean_scores

Label = Callable[[Proposal], float | DropReason]


def labeller(kind: Literal["hard", "preference", "consistency"], judged: PairingInputs) -> Label:
    """From a proposal to its label in (0.5, 1], or to the reason why it should not be trained on."""
    match kind:
        case "hard":
            return lambda proposal: 1.0
        case "preference":
            return _preference(judged.judgments)
        case "consistency":
            label = _consistency(judged)
            return lambda proposal: label
        case _:
            assert_never(kind)


def _preference(judgments: Iterable[Judgment]) -> Label:
    compared: defaultdict[tuple[str, str], list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        if judgment.score is not None and judgment.other_id and not judgment.part:
            compared[judgment.response_id, judgment.other_id].append(judgment)

    def label(proposal: Proposal) -> float | DropReason:
        chosen, rejected = proposal.chosen.response.id, proposal.rejected.response.id
        if (chosen, rejected) not in compared:
            return DropReason.NO_PREFERENCE
        preference = mean_scores(compared[chosen, rejected])[chosen]
        return preference if preference > 0.5 else DropReason.PREFERENCE_DISAGREES

    return label


def weights(kind: Literal["equal", "consistency"], judged: PairingInputs) -> dict[str, float]:
    """What a pair of each prompt counts, by prompt id; 1 where a prompt is absent."""
    return {prompt_id: (tau + 1) / 2 for prompt_id, tau in _taus(judged).items()} if kind == "consistency" else {}


def _consistency(judged: PairingInputs) -> float | DropReason:
    if not judged.previous_judgments:
        return 1.0
    taus = _taus(judged)
    if not taus:
        return DropReason.CONSISTENCY_NOT_MEASURED
    consistency = (fmean(taus.values()) + 1) / 2
    return consistency if consistency > 0.5 else DropReason.JUDGES_DISAGREE


def _taus(judged: PairingInputs) -> dict[str, float]:
    """Kendall's tau of this judge and the previous one, by prompt id, where both rank the policy's responses."""
    now, before = mean_scores(judged.judgments), mean_scores(judged.previous_judgments)
    ranked: defaultdict[str, list[str]] = defaultdict(list)
    for response in judged.responses:
        if response.id in now and response.id in before:
            ranked[response.prompt_id].append(response.id)
    measured = {p: kendall_tau([now[id] for id in ids], [before[id] for id in ids]) for p, ids in ranked.items()}
    return {prompt_id: tau for prompt_id, tau in measured.items() if tau is not None}
