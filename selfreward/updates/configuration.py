"""Our settings as TRL, transformers and PEFT call them."""

import math
from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig

from selfreward.recipe import LoraSection
from selfreward.updates.settings import Settings


def adapters(lora: LoraSection | None) -> Any:
    """2106.09685, in all linear layers as 2305.14314 advises; without dropout, as in sampling."""
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def configuration(settings: Settings, *, saves_folder: Path, num_pairs: int, seed: int) -> DPOConfig:
    """Everything that TRL or transformers would decide by itself is decided here."""
    section = settings.training
    num_steps = math.ceil(num_pairs / section.batch_size) * section.num_epochs
    on_cuda = torch.cuda.is_available()
    arguments = DPOConfig(
        output_dir=str(saves_folder),
        label_smoothing=max(settings.label_smoothings, default=0.0),
        beta=section.beta,
        learning_rate=section.learning_rate,
        lr_scheduler_type=section.lr_scheduler,
        warmup_steps=math.ceil(section.warmup_ratio * num_steps),
        num_train_epochs=section.num_epochs,
        per_device_train_batch_size=section.batch_size,
        gradient_accumulation_steps=1,
        max_grad_norm=section.max_grad_norm,
        weight_decay=section.weight_decay,
        optim="adamw_torch_fused",
        gradient_checkpointing=section.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=None,  # nothing is cut
        precompute_ref_log_probs=True,
        disable_dropout=True,
        remove_unused_columns=False,
        bf16=on_cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not on_cuda,
        ddp_find_unused_parameters=False,
        # Version 2 shards each parameter by itself; every layer of the model is gathered when it is computed.
        fsdp=settings.launch.sharding == "fsdp",
        fsdp_config={"version": 2, "reshard_after_forward": True} if settings.launch.sharding == "fsdp" else None,
        dataloader_pin_memory=False,  # a batch is a list of numbers of pairs
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=section.save_every_steps,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
    )
    if arguments.device.type == "cpu":
        # Of several processes accelerate calls the CPU `cpu:0`, and torch cannot load an optimizer's state to that.
        vars(arguments)["_setup_devices"] = torch.device("cpu")
    return arguments
