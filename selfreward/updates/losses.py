"""Per-pair losses that TRL's trainer does not provide: weighted losses, soft labels, and three losses of our own.

The model runs once on a batch. TRL's unmodified loss code then runs on each pair alone: `Replay` replaces the
model and returns that pair's rows of the stored output, optionally with chosen and rejected swapped. So every TRL loss
that depends on one pair at a time gives a loss per pair, which can be weighted and takes a soft label p, the
probability that chosen is the better response: p loss(chosen, rejected) + (1 - p) loss(rejected, chosen). `nll`,
`simpo` and `length_regularized` are not in TRL and are implemented here on summed log-probabilities. DPO on
length-normalised log-ratios is TRL's `sigmoid_norm`, so it is not implemented here.

Paper: soft labels: CREAM (2410.12735), its regularised objective, C L(pairs) + (1 - C) L(reversed pairs), where p is C;
with `sigmoid` this is DPO with label smoothing 1 - p. Our own losses name their papers in their docstrings.
Differs: CREAM's C is one number for a data set; here every pair has its own label.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


@dataclass(frozen=True)
class Replay:
    """A batch after its forward pass. `output` is the model's output, with its autograd graph.

    `output` is a mapping whose fields have 2B rows, all chosen and then all rejected. `inputs` is the result of
    `packing.padded_batch` (2B rows), with `ref_chosen_logps` and `ref_rejected_logps` (B each).
    """

    output: Any
    inputs: Mapping[str, Tensor]

    @property
    def num_pairs(self) -> int:
        return len(self.inputs["completion_mask"]) // 2

    def pairs(self, indices: Sequence[int], *, mirrored: bool = False) -> tuple[Callable[..., Any], dict[str, Tensor]]:
        """Return a stand-in for the model, and the inputs, for these pairs; `mirrored` swaps chosen and rejected.

        The stand-in ignores its arguments. A value for the complete batch (the load-balancing loss of a mixture of
        experts) is returned unchanged by every call.
        """
        chosen, rejected = list(indices), [self.num_pairs + index for index in indices]
        rows = rejected + chosen if mirrored else chosen + rejected
        output = type(self.output)(**{name: self._rows(value, rows) for name, value in self.output.items()})
        inputs = {
            name: value[rows] if len(value) == 2 * self.num_pairs else value[chosen]
            for name, value in self.inputs.items()
        }
        if mirrored:
            swapped = inputs["ref_rejected_logps"], inputs["ref_chosen_logps"]
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = swapped
        return lambda **_: output, inputs

    def _rows(self, value: Any, rows: list[int]) -> Any:
        return value[rows] if isinstance(value, Tensor) and value.dim() > 0 else value


def trl_losses(
    compute: Callable[[Callable[..., Any], dict[str, Tensor]], Tensor], replay: Replay, *, label_B: Tensor | None = None
) -> Tensor:
    """Return TRL's loss of each pair (B,), where `compute(model, inputs)` is TRL's `compute_loss`, a mean over pairs.

    `label_B` in [0, 1] is the probability that chosen is the better response; None means 1. With labels each pair is
    replayed twice, regardless of its label. Meaningless for losses that are not a mean over pairs (aot, aot_unpaired,
    sft).
    """
    losses = []
    for pair in range(replay.num_pairs):
        loss = compute(*replay.pairs([pair]))
        if label_B is not None:
            reverse = compute(*replay.pairs([pair], mirrored=True))
            loss = label_B[pair] * loss + (1 - label_B[pair]) * reverse
        losses.append(loss)
    return torch.stack(losses)


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
        """Build from TRL's inputs (see `Replay`) and the model's `log_probs`, (2B, T - 1), zero outside responses."""
        mask_BT = inputs["completion_mask"][:, 1:]
        chosen_B, rejected_B = logps_BT.sum(dim=1).chunk(2)
        num_chosen_B, num_rejected_B = mask_BT.sum(dim=1).chunk(2)
        reference = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        return cls(chosen_B, rejected_B, *reference, num_chosen_B, num_rejected_B)

    @property
    def margin_B(self) -> Tensor:
        """Log-ratio of chosen minus log-ratio of rejected; times beta, the margin of DPO's implicit reward."""
        return (self.chosen_B - self.ref_chosen_B) - (self.rejected_B - self.ref_rejected_B)

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


def nll(pairs: PairLogps) -> Tensor:
    """-log pi(yw) / |yw| in nats per token: keeps the chosen response likely while the margin grows. Label-free.

    Paper: Iterative RPO (2404.19733), the NLL term of its loss, whose alpha is the weight of this loss (1 there);
    SPaR (2412.11605) adds it with weight 0.1.
    Differs: |yw| counts the tokens of the response, as in the paper since its second version; the first version divided
    by the length of the full sequence, prompt included, and applied alpha to the DPO term. TRL's `sft` is the mean over
    all tokens of a micro-batch, so that a long response weighs more; here each pair weighs the same.
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
    """-log sigmoid(beta h + alpha (|yw| - |yl|)), h the difference of the log-ratios, alpha nats per token.

    Derivation of the sign: the policy maximises r(y) - alpha |y| - beta KL, so at the optimum r(y) = beta log(pi(y) /
    ref(y)) + alpha |y| + const. Bradley-Terry's r(yw) - r(yl) is then the argument above. Where the chosen response is
    longer, its length explains part of the preference and the policy learns less from the pair; where it is shorter,
    the policy learns more.

    Paper: R-DPO (2403.19159), the length-regularised objective.
    Differs: not at all; lengths are in tokens of the policy.
    """
    return -logsigmoid(beta * pairs.margin_B + alpha * (pairs.num_chosen_tokens_B - pairs.num_rejected_tokens_B))


OWN_LOSSES: dict[str, Callable[..., Tensor]] = {"nll": nll, "simpo": simpo, "length_regularized": length_regularized}
LABEL_FREE_LOSSES = frozenset({"nll"})


def own_losses(kind: str, pairs: PairLogps, *, label_B: Tensor | None = None, **settings: float) -> Tensor:
    """Return our own loss `kind` of each pair (B,); `settings` are the keyword arguments of its function.

    `label_B` as in `trl_losses`. A label-free loss depends only on the chosen response and ignores it.
    """
    loss = partial(OWN_LOSSES[kind], **settings)
    if label_B is None or kind in LABEL_FREE_LOSSES:
        return loss(pairs)
    return label_B * loss(pairs) + (1 - label_B) * loss(pairs.mirrored())
