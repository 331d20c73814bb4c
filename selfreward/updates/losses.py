"""The losses of preference pairs: one function per kind, from summed log-probabilities to a loss of each pair.

They are elementwise on the pairs of a micro-batch, so a pair's loss can be weighted and take a soft label p, the
probability that chosen is the better response: p loss(chosen, rejected) + (1 - p) loss(rejected, chosen). Except for
`nll`, `simpo` and `length_regularized` they are the losses of TRL's stable `DPOTrainer` under its names, and the tests
compare their values and gradients with TRL's code. `aot`, `aot_unpaired` and `sft` depend on all pairs of a
micro-batch; only the mean of theirs has a meaning.

B is the number of pairs. Log-probabilities are in nats, and r(y) is log pi(y) - log pi_ref(y), the log-ratio of a
response.

Paper: soft labels: CREAM (2410.12735), its regularised objective, C L(pairs) + (1 - C) L(reversed pairs), where p is C;
with `sigmoid` this is DPO with label smoothing 1 - p. The losses name their papers in their docstrings.
Differs: CREAM's C is one number for a data set; here every pair has its own label.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, sigmoid
from torch.nn.functional import logsigmoid

DISCOPOP_TAU = 0.05  # of the paper, and of TRL


@dataclass(frozen=True)
class PairLogps:
    """Summed log-probabilities (nats) of the responses under the policy and the reference, and response lengths."""

    chosen_B: Tensor
    rejected_B: Tensor
    ref_chosen_B: Tensor
    ref_rejected_B: Tensor
    num_chosen_tokens_B: Tensor
    num_rejected_tokens_B: Tensor

    @classmethod
    def of(cls, logps_BT: Tensor, inputs: Mapping[str, Tensor]) -> "PairLogps":
        """Build from `log_probs` of the model, (2B, T - 1), all chosen and then all rejected, zero outside responses.

        `inputs` are those of `packing.padded_batch` with `ref_chosen_logps` and `ref_rejected_logps` (B each).
        """
        mask_BT = inputs["completion_mask"][:, 1:]
        chosen_B, rejected_B = logps_BT.sum(dim=1).chunk(2)
        num_chosen_B, num_rejected_B = mask_BT.sum(dim=1).chunk(2)
        reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        return cls(chosen_B, rejected_B, *reference, num_chosen_B, num_rejected_B)

    @property
    def chosen_ratio_B(self) -> Tensor:
        """r(yw): how much more likely the chosen response is under the policy than under the reference."""
        return self.chosen_B - self.ref_chosen_B

    @property
    def rejected_ratio_B(self) -> Tensor:
        """r(yl), of the rejected response."""
        return self.rejected_B - self.ref_rejected_B

    @property
    def margin_B(self) -> Tensor:
        """h = r(yw) - r(yl), the argument of DPO's loss before beta."""
        return self.chosen_ratio_B - self.rejected_ratio_B

    @property
    def margin_per_token_B(self) -> Tensor:
        """r(yw) / |yw| - r(yl) / |yl|."""
        return self.chosen_ratio_B / self.num_chosen_tokens_B - self.rejected_ratio_B / self.num_rejected_tokens_B

    def mirrored(self) -> "PairLogps":
        """Return the same pairs with chosen and rejected swapped."""
        return PairLogps(
            chosen_B=self.rejected_B,
            rejected_B=self.chosen_B,
            ref_chosen_B=self.ref_rejected_B,
            ref_rejected_B=self.ref_chosen_B,
            num_chosen_tokens_B=self.num_rejected_tokens_B,
            num_rejected_tokens_B=self.num_chosen_tokens_B,
        )


def pair_losses(kind: str, pairs: PairLogps, *, label_B: Tensor | None = None, **settings: float) -> Tensor:
    """Return the loss `kind` of each pair (B,); `settings` are the keyword arguments of its function.

    `label_B` in [0, 1] is the probability that chosen is the better response; None means 1. A label-free loss depends
    only on the chosen response and ignores it.
    """
    loss = LOSSES[kind]
    if label_B is None or kind in LABEL_FREE_LOSSES:
        return loss(pairs, **settings)
    return label_B * loss(pairs, **settings) + (1 - label_B) * loss(pairs.mirrored(), **settings)


def dpo(pairs: PairLogps, *, beta: float) -> Tensor:
    """-log sigmoid(beta h). Paper: DPO (2305.18290), equation 7."""
    return -logsigmoid(beta * pairs.margin_B)


def hinge(pairs: PairLogps, *, beta: float) -> Tensor:
    """max(0, 1 - beta h). Paper: SLiC-HF (2305.10425), as normalised in RSO (2309.06657)."""
    return torch.relu(1 - beta * pairs.margin_B)


def ipo(pairs: PairLogps, *, beta: float) -> Tensor:
    """(h' - 1 / (2 beta))^2, h' the margin per token.

    Paper: IPO (2310.12036), equation 17.
    Differs: log-ratios are means over tokens, as TRL confirmed with the authors; the equation has sums.
    """
    return (pairs.margin_per_token_B - 1 / (2 * beta)) ** 2


def exo_pair(pairs: PairLogps, *, beta: float, label_smoothing: float) -> Tensor:
    """KL between the policy's and the smoothed label's distribution over the pair. Paper: EXO (2402.00856), eq. 16."""
    margin_B = beta * pairs.margin_B
    chosen_B = sigmoid(margin_B) * (logsigmoid(margin_B) - math.log1p(-label_smoothing))
    return chosen_B + sigmoid(-margin_B) * (logsigmoid(-margin_B) - math.log(label_smoothing))


def robust(pairs: PairLogps, *, beta: float, label_smoothing: float) -> Tensor:
    """DPO that is unbiased when a share `label_smoothing` of the labels is wrong. Paper: rDPO (2403.00409)."""
    margin_B = beta * pairs.margin_B
    clean_B, flipped_B = (1 - label_smoothing) * logsigmoid(margin_B), label_smoothing * logsigmoid(-margin_B)
    return (flipped_B - clean_B) / (1 - 2 * label_smoothing)


def nca_pair(pairs: PairLogps, *, beta: float) -> Tensor:
    """Noise contrastive alignment, on absolute rewards. Paper: NCA (2402.05369), for pairs with equal weights."""
    chosen_B, rejected_B = beta * pairs.chosen_ratio_B, beta * pairs.rejected_ratio_B
    return -logsigmoid(chosen_B) - 0.5 * logsigmoid(-chosen_B) - 0.5 * logsigmoid(-rejected_B)


def bco_pair(pairs: PairLogps, *, beta: float) -> Tensor:
    """A binary classifier whose logit is the reward.

    Paper: BCO (2404.04656).
    Differs: without the shift delta of the rewards, as in TRL's DPO trainer.
    """
    return -logsigmoid(beta * pairs.chosen_ratio_B) - logsigmoid(-beta * pairs.rejected_ratio_B)


def sppo_hard(pairs: PairLogps, *, beta: float) -> Tensor:
    """(r(yw) - 1 / (2 beta))^2 + (r(yl) + 1 / (2 beta))^2.

    Paper: SPPO (2405.00675), equation 4.7.
    Differs: the winner's probability of winning is 1 and the loser's 0, instead of estimates.
    """
    return (pairs.chosen_ratio_B - 0.5 / beta) ** 2 + (pairs.rejected_ratio_B + 0.5 / beta) ** 2


def aot(pairs: PairLogps, *, beta: float) -> Tensor:
    """DPO on margins of policy and reference that are sorted separately. Paper: AOT (2406.05882), paired."""
    policy_B, reference_B = (x.sort().values for x in (pairs.chosen_B - pairs.rejected_B,
                                                       pairs.ref_chosen_B - pairs.ref_rejected_B))  # fmt: skip
    return -logsigmoid(beta * (policy_B - reference_B))


def aot_unpaired(pairs: PairLogps, *, beta: float) -> Tensor:
    """DPO on log-ratios of chosen and rejected that are sorted separately. Paper: AOT (2406.05882), unpaired."""
    return -logsigmoid(beta * (pairs.chosen_ratio_B.sort().values - pairs.rejected_ratio_B.sort().values))


def apo_zero(pairs: PairLogps, *, beta: float) -> Tensor:
    """Raises the chosen and lowers the rejected response's likelihood. Paper: APO (2408.06266), equation 7."""
    return sigmoid(-beta * pairs.chosen_ratio_B) + sigmoid(beta * pairs.rejected_ratio_B)


def apo_down(pairs: PairLogps, *, beta: float) -> Tensor:
    """Lowers both likelihoods, the rejected response's more. Paper: APO (2408.06266), equation 8."""
    return sigmoid(beta * pairs.chosen_ratio_B) + sigmoid(-beta * pairs.margin_B)


def discopop(pairs: PairLogps, *, beta: float) -> Tensor:
    """A mixture of logistic and exponential loss that was found by search. Paper: DiscoPOP (2406.08414), eq. 5."""
    margin_B = beta * pairs.margin_B
    share_B = sigmoid(margin_B / DISCOPOP_TAU)
    return (share_B - 1) * logsigmoid(margin_B) + share_B * torch.exp(-margin_B)


def sigmoid_norm(pairs: PairLogps, *, beta: float) -> Tensor:
    """DPO on log-ratios per token. Paper: the length-normalised DPO of Tulu 3 (2411.15124)."""
    return -logsigmoid(beta * pairs.margin_per_token_B)


def sft(pairs: PairLogps, *, beta: float) -> Tensor:
    """Mean negative log-likelihood over all tokens of the chosen responses, the same number for each pair."""
    return (-pairs.chosen_B.sum() / pairs.num_chosen_tokens_B.sum()).expand(len(pairs.chosen_B))


def nll(pairs: PairLogps, *, beta: float = 1.0) -> Tensor:
    """-log pi(yw) / |yw| in nats per token: keeps the chosen response likely while the margin grows. Label-free.

    Paper: Iterative RPO (2404.19733), the NLL term of its loss, whose alpha is the weight of this loss (1 there);
    SPaR (2412.11605) adds it with weight 0.1.
    Differs: |yw| counts the tokens of the response, as in the paper since its second version; the first version divided
    by the length of the full sequence, prompt included, and applied alpha to the DPO term. `sft` is the mean over all
    tokens of a micro-batch, so that a long response weighs more; here each pair weighs the same.
    """
    return -pairs.chosen_B / pairs.num_chosen_tokens_B


def simpo(pairs: PairLogps, *, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta log pi(yw) / |yw| - beta log pi(yl) / |yl| - gamma); the reference is not used.

    Paper: SimPO (2405.14734), equation 6.
    Differs: not at all; some implementations call gamma / beta gamma.
    """
    chosen_B = pairs.chosen_B / pairs.num_chosen_tokens_B
    rejected_B = pairs.rejected_B / pairs.num_rejected_tokens_B
    return -logsigmoid(beta * (chosen_B - rejected_B) - gamma)


def length_regularized(pairs: PairLogps, *, beta: float, alpha: float) -> Tensor:
    """-log sigmoid(beta h + alpha (|yw| - |yl|)), alpha in nats per token.

    Derivation of the sign: the policy maximises r(y) - alpha |y| - beta KL, so at the optimum r(y) = beta log(pi(y) /
    ref(y)) + alpha |y| + const. Bradley-Terry's r(yw) - r(yl) is then the argument above. Where the chosen response is
    longer, its length explains part of the preference and the policy learns less from the pair; where it is shorter,
    the policy learns more.

    Paper: R-DPO (2403.19159), the length-regularised objective.
    Differs: not at all; lengths are in tokens of the policy.
    """
    return -logsigmoid(beta * pairs.margin_B + alpha * (pairs.num_chosen_tokens_B - pairs.num_rejected_tokens_B))


LOSSES: dict[str, Callable[..., Tensor]] = {"sigmoid": dpo} | {
    loss.__name__: loss
    for loss in (
        hinge, ipo, exo_pair, robust, nca_pair, bco_pair, sppo_hard, aot, aot_unpaired, apo_zero, apo_down, discopop,
        sigmoid_norm, sft, nll, simpo, length_regularized,
    )
}  # fmt: skip
LABEL_FREE_LOSSES = frozenset({"nll"})


def mean_loss(loss: Any, pairs: PairLogps, *, beta: float, weight_B: Tensor, label_B: Tensor | None) -> Tensor:
    """Return the mean over pairs of a `training.losses` section's loss, with its weight and those of the pairs.

    `beta` is that of `training`; a section may have one of its own.
    """
    settings = {"beta": beta} | loss.model_dump(exclude={"kind", "weight"})
    mean: Tensor = loss.weight * (weight_B * pair_losses(loss.kind, pairs, label_B=label_B, **settings)).mean()
    return mean
