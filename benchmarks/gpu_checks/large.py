"""The shape of a 7B model: what fits, as predicted or not, and the message when memory is short."""

from typing import Any

import torch
from models import QWEN_7B, SMALL, config_of, random_model, random_pairs, stored_dtype, take_step, trainer_of
from short_memory import ENOUGH, message_when_memory_is_short
from speed import now, peak_gib, reset_peak
from step import Step, main

from selfreward.installation import version_of
from selfreward.recipe import LoraSection, TrainingSection
from selfreward.updates.budgets import free_memory
from selfreward.updates.memory import training_memory
from selfreward.updates.settings import Settings

CASES: dict[str, dict[str, Any]] = {
    "LoRA, bfloat16 base": {"lora": True},
    "bfloat16, checkpointing": {"weights_dtype": "bfloat16", "gradient_checkpointing": True, "learning_rate": 1e-5},
    "float32, adamw_8bit": {"optimizer": "adamw_8bit", "gradient_checkpointing": True},
    "float32, adamw": {"gradient_checkpointing": True},
}


def run(step: Step) -> None:
    config = config_of("qwen2", QWEN_7B if step.on_cuda else SMALL | {"num_hidden_layers": 2})
    num_pairs, num_tokens = (8, 2048) if step.on_cuda else (2, 128)
    with step.attempt("message when memory is short"):
        text = message_when_memory_is_short(step.folder, device=step.device)
        wanted = "micro_batch_tokens is 65536" if step.on_cuda else ENOUGH
        step.check("message when memory is short", text, limit=f"contains: {wanted}", ok=wanted in text)
    for name, changes in CASES.items():
        if changes.get("optimizer") == "adamw_8bit" and not version_of("bitsandbytes"):
            step.figure(name, "not here: bitsandbytes is not installed")
        elif step.on_cuda or name.startswith("LoRA"):
            with step.attempt(name):
                _one_step(step, name, config, changes, num_pairs, num_tokens)


def _one_step(step: Step, name: str, config: Any, changes: dict[str, Any], num_pairs: int, num_tokens: int) -> None:
    """Take two steps, or say that they do not fit: both must be what was predicted."""
    reset_peak(step.device)
    fits = _is_predicted_to_fit(config, changes, num_tokens, step.device)
    step.figure(f"{name}: predicted", "fits" if fits else "does not fit")
    try:
        loss, seconds = _steps(step.device, config, changes, num_pairs, num_tokens)
    except torch.OutOfMemoryError as error:
        step.check(name, str(error).splitlines()[0][:150], limit="fits, as predicted", ok=not fits)
        return
    step.check(f"{name}: loss", loss, limit="finite", ok=torch.isfinite(torch.tensor(loss)).item())
    step.figure(f"{name}: second step", seconds, "s")
    step.figure(f"{name}: tokens/s", num_pairs * num_tokens / seconds, "tokens/s")
    step.figure(f"{name}: peak", peak_gib(step.device), "GiB")


def _steps(device: str, config: Any, changes: dict[str, Any], num_pairs: int, num_tokens: int) -> tuple[float, float]:
    model = random_model(config, device=device, dtype=stored_dtype(**changes))
    pairs = random_pairs(num_pairs, num_tokens, vocabulary=config.vocab_size)
    trainer, block = trainer_of(model, pairs, micro_batch_tokens=num_tokens, **changes)
    take_step(trainer, block)
    started = now(device)
    loss = take_step(trainer, block)
    seconds = now(device) - started
    trainer.close()
    return loss, seconds


def _is_predicted_to_fit(config: Any, changes: dict[str, Any], num_tokens: int, device: str) -> bool:
    if device == "cpu":
        return True
    training = {key: value for key, value in changes.items() if key != "lora"}
    lora = LoraSection() if changes.get("lora") else None
    settings = Settings(training=TrainingSection(**training), engine_dtype="bfloat16", lora=lora)
    found = training_memory(config, settings, on_cuda=True)
    return found.tokens_that_fit(free_memory(torch.device(device))) >= num_tokens


if __name__ == "__main__":
    main(run)
