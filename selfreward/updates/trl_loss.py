"""TRL's losses on pairs whose log-probabilities are known. The only file of this package that imports TRL.

TRL's losses are the branches of one method of its stable `DPOTrainer`. That method calls a model and computes the loss
from its output. The rest of the trainer (data, loop, saves, telemetry) is not used: the constructor is never called,
and only the attributes that the method reads are set.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

# For the forward pass: TRL's head, which returns log-probabilities, and the class of its output.
__all__ = ["FusedCausalLMOutput", "TrlPairLoss", "add_fused_lm_head"]


class TrlPairLoss(DPOTrainer):  # type: ignore[misc]  # TRL has no types
    """The weighted sum of TRL's losses `kinds`, as a mean over the pairs of a batch.

    `label_smoothing` in [0, 1) applies to all losses that have one. All other settings have TRL's defaults.
    """

    def __init__(
        self, kinds: Sequence[str], *, weights: Sequence[float], beta: float, label_smoothing: float, device: Any
    ) -> None:
        self.loss_types, self.loss_weights = [*kinds], [*weights]
        self.beta, self.label_smoothing = beta, label_smoothing
        self.precompute_ref_logps = True  # the inputs contain the reference's log-probabilities
        # A router's loss depends on the division into micro-batches, and a short training does not need it.
        self.aux_loss_enabled = False
        self.f_divergence_type, self.ld_alpha = DPOConfig.f_divergence_type, DPOConfig.ld_alpha
        self.use_weighting = DPOConfig.use_weighting
        self.args = SimpleNamespace(discopop_tau=DPOConfig.discopop_tau, max_length=None)
        self.model = SimpleNamespace(training=True)
        # TRL gathers metrics over processes inside the loss. They are not used here, so nothing is gathered.
        self.accelerator = SimpleNamespace(
            device=torch.device(device), gather=_no_gather, gather_for_metrics=_no_gather
        )
        self._metrics: dict[str, Any] = {"train": defaultdict(list)}
        self._total_train_tokens, self._tp_size = 0, 1

    def __call__(self, model: Callable[..., Any], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the loss as a scalar. `model` returns `FusedCausalLMOutput`; `inputs` as in `losses.Replay`."""
        loss: Tensor = self.compute_loss(model, dict(inputs))
        self._metrics["train"].clear()
        return loss


def _no_gather(tensor: Tensor) -> Tensor:
    return tensor
