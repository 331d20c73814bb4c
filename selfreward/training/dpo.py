"""Full fine-tuning on preference pairs with TRL's stable `DPOTrainer`.

The update raises the implicit reward beta * log(pi / pi_ref) of the chosen response over that of the rejected one.
On CUDA it runs in a child process, so that its memory is all given back; on a CPU it is a call in this process.

Paper: 2305.18290, section 4 (DPO); on-policy iterations as in Self-Rewarding, 2401.10020, section 2.4.
Differs: the reference is the policy at the start of the iteration, not M_0 (`reference: initial` is the paper's);
learning rate 5e-7 with float32 weights and no warm-up; the pairs of an iteration are trained on once.
"""

from collections.abc import Mapping
from typing import Any

from selfreward.errors import RecipeError
from selfreward.parts import TrainingJob
from selfreward.recipe import TrainingSection


class DpoTraining:
    """`parts.Trainer`. Holds settings only; all state is in the job's work folder."""

    def __init__(self, section: TrainingSection, *, engine_dtype: str, trust_remote_code: bool) -> None:
        _refuse_settings_without_effect(section)
        self._section = section
        self._engine_dtype = engine_dtype
        self._trust_remote_code = trust_remote_code

    def train(self, job: TrainingJob) -> Mapping[str, Any]:
        """The metrics that `update.train` describes. Raises TrainingError, StoreError and RecipeError."""
        import torch

        from selfreward.training.progress import Display

        if torch.cuda.is_available():
            from selfreward.training.child import train_in_child as train
        else:
            from selfreward.training.update import train

        with Display() as display:
            return train(
                job,
                self._section,
                engine_dtype=self._engine_dtype,
                trust_remote_code=self._trust_remote_code,
                report=display,
            )


def _refuse_settings_without_effect(section: TrainingSection) -> None:
    kinds = [loss.kind for loss in section.losses]
    if "robust" in kinds:
        raise RecipeError(
            "training.losses: robust without label smoothing, which the recipe does not have, is the sigmoid loss; "
            "use kind: sigmoid"
        )
    if section.lr_scheduler == "constant" and section.warmup_ratio > 0:
        raise RecipeError(
            f"training.warmup_ratio: {section.warmup_ratio} has no effect with lr_scheduler: constant; "
            "set it to 0 or use constant_with_warmup"
        )
    sorting = sorted({kind for kind in kinds if kind.startswith("aot")})
    if sorting and section.micro_batch_size < section.batch_size:
        raise RecipeError(
            f"training.losses: {sorting[0]} compares the pairs of a micro batch with each other, so micro_batch_size "
            f"{section.micro_batch_size} below batch_size {section.batch_size} would change the loss; "
            "set both to the same number"
        )
