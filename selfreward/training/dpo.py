"""The update on preference pairs with TRL's stable `DPOTrainer`: all weights, or low-rank adapters.

The update raises the implicit reward beta * log(pi / pi_ref) of the chosen response over that of the rejected one.
On CUDA it runs in child processes, so that its memory is all given back; one CPU process is a call in this one.

Paper: 2305.18290, section 4 (DPO); on-policy iterations as in Self-Rewarding, 2401.10020, section 2.4.
Differs: the reference is the policy at the start of the iteration, not M_0 (`reference: initial` is the paper's);
learning rate 5e-7 with float32 weights and no warm-up; the pairs of an iteration are trained on once.
"""

from collections.abc import Mapping
from typing import Any

from selfreward.errors import RecipeError
from selfreward.parts import TrainingJob
from selfreward.training.settings import Settings

# Losses that are no mean over pairs, and what to say besides.
COUPLED = {"aot": "", "aot_unpaired": "", "sft": "; or use kind: nll, the mean over pairs of the same quantity"}


class DpoTraining:
    """`parts.Trainer`. Holds settings only; all state is in the job's work folder."""

    def __init__(self, settings: Settings) -> None:
        _refuse_settings_without_effect(settings)
        _refuse_divided(settings)
        _refuse_launch(settings)
        self._settings = settings

    def train(self, job: TrainingJob) -> Mapping[str, Any]:
        """The metrics that `update.train` describes. Raises TrainingError, StoreError and RecipeError."""
        import torch

        from selfreward.training.progress import Display

        if torch.cuda.is_available() or self._settings.launch.num_processes > 1:
            from selfreward.training.child import train_in_child as train
        else:
            from selfreward.training.update import train

        with Display() as display:
            return train(job, self._settings, report=display)


def _refuse_settings_without_effect(settings: Settings) -> None:
    section = settings.training
    if len(smoothings := settings.label_smoothings) > 1:
        raise RecipeError(
            f"training.losses: label_smoothing is {' and '.join(map(str, sorted(smoothings)))}; TRL has one for all "
            "losses; set them alike"
        )
    reference_free = all(loss.kind in {"nll", "simpo"} for loss in section.losses)
    if reference_free and section.reference_logprobs == "sampler":
        raise RecipeError(
            "training.reference_logprobs: sampler has no effect, because none of the losses looks at the reference; "
            "remove it"
        )
    if section.lr_scheduler == "constant" and section.warmup_ratio > 0:
        raise RecipeError(
            f"training.warmup_ratio: {section.warmup_ratio} has no effect with lr_scheduler: constant; "
            "set it to 0 or use constant_with_warmup"
        )


def _refuse_divided(settings: Settings) -> None:
    """A coupled loss wants all pairs of its step in one micro-batch."""
    section = settings.training
    kinds = {loss.kind for loss in section.losses}
    whole = section.packing == "padded" and section.micro_batch_tokens is None
    whole = whole and (section.micro_batch_size or section.batch_size) >= section.batch_size
    for kind in sorted(kinds & COUPLED.keys()):
        if not (whole and settings.launch.num_processes == 1):
            raise RecipeError(
                f"training.losses: {kind} is not a mean over pairs: it looks at the other pairs of its micro-batch, so "
                "a division into micro-batches would change it; use training.packing: padded, "
                "training.micro_batch_tokens: null, "
                "training.micro_batch_size: null and launch.num_processes: 1 with it" + COUPLED[kind]
            )


def _refuse_launch(settings: Settings) -> None:
    launch = settings.launch
    if launch.num_processes == 1 and launch.sharding == "none":
        return
    import torch

    num_gpus = torch.cuda.device_count()
    if launch.sharding == "fsdp" and num_gpus == 0:
        # accelerate shards on accelerators only, and would make whole copies without a word.
        raise RecipeError("launch.sharding: fsdp without CUDA; only GPUs can share a model here; use none")
    if launch.sharding == "fsdp" and launch.num_processes == 1:
        raise RecipeError("launch.sharding: fsdp with one process; at least 2 share a model; raise num_processes")
    if launch.sharding == "fsdp" and settings.training.weights_dtype != "float32":
        raise RecipeError(
            "training.weights_dtype: bfloat16 with launch.sharding: fsdp, which holds float32; use float32"
        )
    if 0 < num_gpus < launch.num_processes:
        raise RecipeError(
            f"launch.num_processes: {launch.num_processes}, and {num_gpus} GPUs are here; one process a GPU; lower it"
        )
