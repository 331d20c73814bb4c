"""What to change when an update runs out of memory."""

from selfreward.updates.settings import Settings


def advice(settings: Settings) -> str:
    """Return what was set and what needs less memory than that, the least change first."""
    section, lora = settings.training, settings.lora
    tokens, checkpointing = section.micro_batch_tokens, section.gradient_checkpointing
    found = f"micro_batch_tokens is {'null' if tokens is None else tokens}"
    if tokens == "auto":
        found += ", which was reduced as far as it can be"
    found += f", and gradient_checkpointing is {str(checkpointing).lower()}"
    now = []
    if tokens != "auto":
        now.append(f"{'set' if tokens is None else 'lower'} training.micro_batch_tokens")
    if checkpointing is not True:
        now.append("set training.gradient_checkpointing: true")
    anew = []
    if not settings.launch.is_sharded:
        if lora is None and section.optimizer == "adamw":
            anew.append("training.optimizer: adamw_8bit")
        if lora is not None and lora.base_dtype != "nf4":
            anew.append("models.policy.lora.base_dtype: nf4")
    if lora is None:
        anew.append("adapters (models.policy.lora)")
    can_be_sharded = section.optimizer == "adamw" and (lora is None or lora.base_dtype != "nf4")
    anew.append("launch.sharding: fsdp on more GPUs" if can_be_sharded else "a GPU with more memory")
    do = f"{' or '.join(now)}, and run the same command again; " if now else ""
    return f"{found}; {do}a new run may need less with {' or '.join(anew)}"
