"""Problems of `training` in combination with `launch`, the model and the machine."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from selfreward.model_files.json_file import read_json_object, text_config
from selfreward.problems import Facts, Problem
from selfreward.recipe import TrainingSection
from selfreward.updates.launch_problems import launch_problems
from selfreward.updates.settings import COUPLED_LOSSES, Settings, settings_of

BITSANDBYTES = {"adamw_8bit", "adamw_offload"}
"""Optimizers of this package."""
ROUNDING = ("adamw", "adamw_8bit")
"""Optimizers that round bfloat16 weights at random."""


def problems(section: TrainingSection, facts: Facts) -> Iterator[Problem]:
    yield from settings_problems(settings_of(facts.recipe))
    yield from _recomputed_layers(section, facts.models["policy"].path)


def _recomputed_layers(section: TrainingSection, policy: Path) -> Iterator[Problem]:
    """Find before a run what `recomputed_layers.py` would refuse after sampling."""
    wanted = section.gradient_checkpointing
    found = text_config(read_json_object(policy / "config.json")).get("num_hidden_layers")
    if not isinstance(wanted, bool) and isinstance(found, int) and wanted > found:
        yield Problem(
            f"training.gradient_checkpointing: {wanted}, but the policy has {found} layers; 1 to {found}, true and "
            "false are allowed; use true for all layers"
        )


def settings_problems(settings: Settings) -> Iterator[Problem]:
    yield from _losses(settings)
    yield from _coupled_losses(settings)
    yield from _optimizer(settings)
    yield from _adapters(settings)
    yield from launch_problems(settings)


def _losses(settings: Settings) -> Iterator[Problem]:
    section = settings.training
    is_reference_free = all(loss.kind in {"nll", "simpo"} for loss in section.losses)
    if is_reference_free and section.reference_logprobs == "sampler":
        yield Problem(
            "training.reference_logprobs: sampler has no effect, because none of the losses uses the reference; "
            "remove it"
        )
    yield from _schedule(section)


def _schedule(section: TrainingSection) -> Iterator[Problem]:
    steps, ratio = section.warmup_steps, section.warmup_ratio
    if steps is not None and ratio > 0:
        yield Problem(
            f"training.warmup_steps: {steps}, and warmup_ratio: {ratio}, both set the warm-up; one of them is allowed; "
            "remove the other"
        )
    if section.lr_scheduler == "constant":
        for name, value in (("warmup_ratio", ratio), ("warmup_steps", steps)):
            if value:
                yield Problem(
                    f"training.{name}: {value} has no effect with lr_scheduler: constant; "
                    "set it to 0 or use constant_with_warmup"
                )
    if section.lr_scheduler == "constant_with_warmup" and not ratio and not steps:
        yield Problem(
            "training.lr_scheduler: constant_with_warmup without a warm-up is constant; set warmup_steps or "
            "warmup_ratio, or use constant"
        )
    if section.lr_scheduler in {"constant", "constant_with_warmup"} and section.min_lr_ratio > 0:
        yield Problem(
            f"training.min_lr_ratio: {section.min_lr_ratio} has no effect with lr_scheduler: {section.lr_scheduler}, "
            "which does not decay; linear and cosine do; set it to 0 or use one of them"
        )


def _optimizer(settings: Settings) -> Iterator[Problem]:
    optimizer = settings.training.optimizer
    if optimizer in BITSANDBYTES and importlib.util.find_spec("bitsandbytes") is None:
        yield Problem(
            f"training.optimizer: {optimizer}, but the package bitsandbytes is not installed; adamw and adafactor do "
            "not need it; use one of them, or install it with: pip install 'selfreward-lm[optimizers]'"
        )
    if optimizer == "adamw_offload" and not _has_gpu():
        yield Problem(
            "training.optimizer: adamw_offload on a machine without a GPU: there is nothing to offload to, because the "
            "optimizer's state is in host memory already; adamw and adamw_8bit are allowed; use adamw"
        )
    if optimizer != "adamw" and settings.launch.is_sharded:
        yield Problem(
            f"training.optimizer: {optimizer} with launch.sharding: {settings.launch.sharding}; sharded, only adamw "
            "was tested; use adamw, or launch.sharding: none"
        )
    yield from _stochastic_rounding(settings)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _stochastic_rounding(settings: Settings) -> Iterator[Problem]:
    section = settings.training
    if section.weights_dtype != "bfloat16" or not section.stochastic_rounding or settings.lora is not None:
        return
    otherwise = "or set training.stochastic_rounding: false, which loses most updates below a learning rate of 1e-5"
    if section.optimizer not in ROUNDING:
        yield Problem(
            f"training.stochastic_rounding: true with optimizer: {section.optimizer}, which rounds bfloat16 weights to "
            f"nearest; {' and '.join(ROUNDING)} can round at random; use one of them, {otherwise}"
        )
        return
    from selfreward.updates.stochastic_rounding import missing

    if found := missing():
        what, how = found
        yield Problem(
            f"training.weights_dtype: bfloat16 with stochastic_rounding: true, but {what} is missing, which its "
            f"compiled step needs; {how}, {otherwise}"
        )


def _adapters(settings: Settings) -> Iterator[Problem]:
    if settings.lora is None or settings.lora.base_dtype != "nf4":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        yield Problem(
            "models.policy.lora.base_dtype: nf4, but the package bitsandbytes is not installed; float32 and bfloat16 "
            "do not need it; use one of them, or install it with: pip install 'selfreward-lm[optimizers]'"
        )
    if settings.launch.is_sharded:
        yield Problem(
            f"models.policy.lora.base_dtype: nf4 with launch.sharding: {settings.launch.sharding}; weights of 4 bits "
            "are packed with their scales on one device and cannot be sharded; use bfloat16, or launch.sharding: none"
        )


def _coupled_losses(settings: Settings) -> Iterator[Problem]:
    """A coupled loss needs all pairs of its step in one micro-batch."""
    section = settings.training
    kinds = {loss.kind for loss in section.losses}
    is_undivided = section.packing == "padded" and section.micro_batch_tokens is None
    is_undivided = is_undivided and (section.micro_batch_size or section.batch_size) >= section.batch_size
    for kind in sorted(kinds & COUPLED_LOSSES.keys()):
        if not (is_undivided and settings.launch.num_processes == 1):
            yield Problem(
                f"training.losses: {kind} is not a mean over pairs: it depends on the other pairs of its micro-batch, "
                "so a division into micro-batches would change it; use training.packing: padded, "
                "training.micro_batch_tokens: null, training.micro_batch_size: null and "
                "launch.processes_per_node: 1 on one node with it" + COUPLED_LOSSES[kind]
            )
