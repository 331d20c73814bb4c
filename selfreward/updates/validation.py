"""What is wrong with `training` and `launch` beside each other, the model and the machine."""

import importlib.util
from collections.abc import Iterator

from selfreward.problems import Facts, Problem
from selfreward.recipe import TrainingSection
from selfreward.updates.settings import COUPLED, Settings, settings_of


def problems(_: TrainingSection, facts: Facts) -> Iterator[Problem]:
    yield from of_settings(settings_of(facts.recipe))


def of_settings(settings: Settings) -> Iterator[Problem]:
    yield from _without_effect(settings)
    yield from _divided(settings)
    yield from _optimizer(settings)
    yield from _launch(settings)


def _without_effect(settings: Settings) -> Iterator[Problem]:
    section = settings.training
    if len(smoothings := settings.label_smoothings) > 1:
        yield Problem(
            f"training.losses: label_smoothing is {' and '.join(map(str, sorted(smoothings)))}; TRL has one for all "
            "losses; set them alike"
        )
    reference_free = all(loss.kind in {"nll", "simpo"} for loss in section.losses)
    if reference_free and section.reference_logprobs == "sampler":
        yield Problem(
            "training.reference_logprobs: sampler has no effect, because none of the losses looks at the reference; "
            "remove it"
        )
    yield from _schedule(section)


def _schedule(section: TrainingSection) -> Iterator[Problem]:
    steps, ratio = section.warmup_steps, section.warmup_ratio
    if steps is not None and ratio > 0:
        yield Problem(
            f"training.warmup_steps: {steps}, and warmup_ratio: {ratio} says the same in another unit; one of them; "
            "remove the other"
        )
    if section.lr_scheduler == "constant":
        for name, value in (("warmup_ratio", ratio), ("warmup_steps", steps)):
            if value:
                yield Problem(
                    f"training.{name}: {value} has no effect with lr_scheduler: constant; "
                    "set it to 0 or use constant_with_warmup"
                )
    if section.lr_scheduler in {"constant", "constant_with_warmup"} and section.min_lr_ratio > 0:
        yield Problem(
            f"training.min_lr_ratio: {section.min_lr_ratio} has no effect with lr_scheduler: {section.lr_scheduler}, "
            "which does not decay; linear and cosine do; set it to 0 or use one of these"
        )


def _optimizer(settings: Settings) -> Iterator[Problem]:
    optimizer = settings.training.optimizer
    if optimizer == "adamw_8bit" and importlib.util.find_spec("bitsandbytes") is None:
        yield Problem(
            "training.optimizer: adamw_8bit, and the package bitsandbytes is not installed; adamw and adafactor need "
            "no package; install selfreward-lm[optimizers] or use one of these"
        )
    if optimizer != "adamw" and settings.launch.sharding == "fsdp":
        yield Problem(
            f"training.optimizer: {optimizer} with launch.sharding: fsdp; its state cannot be sharded, only that of "
            "adamw can; use adamw, or launch.sharding: none"
        )


def _divided(settings: Settings) -> Iterator[Problem]:
    """A coupled loss wants all pairs of its step in one micro-batch."""
    section = settings.training
    kinds = {loss.kind for loss in section.losses}
    whole = section.packing == "padded" and section.micro_batch_tokens is None
    whole = whole and (section.micro_batch_size or section.batch_size) >= section.batch_size
    for kind in sorted(kinds & COUPLED.keys()):
        if not (whole and settings.launch.num_processes == 1):
            yield Problem(
                f"training.losses: {kind} is not a mean over pairs: it looks at the other pairs of its micro-batch, so "
                "a division into micro-batches would change it; use training.packing: padded, "
                "training.micro_batch_tokens: null, "
                "training.micro_batch_size: null and launch.num_processes: 1 with it" + COUPLED[kind]
            )


def _launch(settings: Settings) -> Iterator[Problem]:
    launch = settings.launch
    if launch.num_processes == 1 and launch.sharding == "none":
        return
    import torch

    num_gpus = torch.cuda.device_count()
    if launch.sharding == "fsdp" and num_gpus == 0:
        # accelerate shards on accelerators only, and would make whole copies without a word.
        yield Problem("launch.sharding: fsdp without CUDA; only GPUs can share a model here; use none")
    if launch.sharding == "fsdp" and launch.num_processes == 1:
        yield Problem("launch.sharding: fsdp with one process; at least 2 share a model; raise num_processes")
    if launch.sharding == "fsdp" and settings.training.weights_dtype != "float32":
        yield Problem("training.weights_dtype: bfloat16 with launch.sharding: fsdp, which holds float32; use float32")
    if 0 < num_gpus < launch.num_processes:
        yield Problem(
            f"launch.num_processes: {launch.num_processes}, and {num_gpus} GPUs are here; one process a GPU; lower it"
        )
