"""The predicted memory of an update against the measured peak of real steps; `micro_batch_tokens: auto`."""

import sys
from pathlib import Path
from typing import Any

import torch
from models import LLAMA_1B, SMALL, config_of, random_model, random_pairs, stored_dtype, take_step, trainer_of
from speed import reset_peak
from step import Step, main

from selfreward.installation import version_of
from selfreward.recipe import LoraSection, TrainingSection
from selfreward.updates.memory import training_memory
from selfreward.updates.settings import Settings

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "checkpointing": {"gradient_checkpointing": True},
    "LoRA": {"lora": True},
    "LoRA, checkpointing": {"lora": True, "gradient_checkpointing": True},
    "bfloat16 weights": {"weights_dtype": "bfloat16"},
    "adamw_8bit": {"optimizer": "adamw_8bit"},
}
CASES_ON_CPU = ("plain", "checkpointing")  # tests/integration/updates/test_memory.py has the others
LOW, HIGH = 0.85, 1.2  # predicted over measured: above 1 wastes memory, below .9, the margin of `auto`, it runs out


def run(step: Step) -> None:
    config = config_of("llama", LLAMA_1B if step.on_cuda else SMALL | {"num_hidden_layers": 3})
    num_tokens = 8192 if step.on_cuda else 256
    for name, changes in CASES.items():
        if not step.on_cuda and name not in CASES_ON_CPU:
            continue
        if name == "adamw_8bit" and not version_of("bitsandbytes"):
            step.figure(name, "not here: bitsandbytes is not installed")
            continue
        with step.attempt(name):
            predicted = _predicted(config, num_tokens, on_cuda=step.on_cuda, **changes)
            found = _measured(config, num_tokens, step.device, **changes)
            step.figure(f"{name}: measured peak", found / 2**30, "GiB")
            share = predicted / found
            step.check(f"{name}: predicted / measured", share, limit=f"{LOW} to {HIGH}", ok=LOW <= share <= HIGH)
    with step.attempt("auto"):
        auto(step, config)


def _predicted(config: Any, num_tokens: int, *, on_cuda: bool, lora: bool = False, **training: Any) -> int:
    settings = Settings(
        training=TrainingSection(**training), engine_dtype="bfloat16", lora=LoraSection() if lora else None
    )
    return training_memory(config, settings, on_cuda=on_cuda).peak(num_tokens, num_tokens // 2, num_tokens * 3 // 4)


def _measured(config: Any, num_tokens: int, device: str, **changes: Any) -> int:
    """Return the peak of two steps in micro-batches of one pair of `num_tokens` tokens, half of them labels."""
    reset_peak(device)
    model = random_model(config, device=device, dtype=stored_dtype(**changes))
    pairs = random_pairs(2, num_tokens, vocabulary=config.vocab_size)
    trainer, block = trainer_of(model, pairs, micro_batch_size=1, micro_batch_tokens=None, **changes)
    reset_peak(device)
    if device == "cuda":
        for _ in range(2):
            take_step(trainer, block)
        return int(torch.cuda.max_memory_allocated())
    with _counted(trainer.model) as memory:
        for _ in range(2):
            take_step(trainer, block)
    return int(memory.peak)


def _counted(model: torch.nn.Module) -> Any:
    """Return what counts the memory of tensors on a CPU: the tests of a checkout have it."""
    sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
    from cases.peak_memory import PeakMemory

    memory = PeakMemory()
    memory.count(*model.parameters())
    return memory


def auto(step: Step, config: Any) -> None:
    """A step on many pairs with `micro_batch_tokens: auto`: it must fill the memory without running out of it."""
    num_pairs, num_tokens = (72, 1024) if step.on_cuda else (6, 256)
    model = random_model(config, device=step.device).cpu()  # as in a run, where the model is not on the device yet
    reset_peak(step.device)
    pairs = random_pairs(num_pairs, num_tokens, vocabulary=config.vocab_size)
    trainer, block = trainer_of(model, pairs, micro_batch_tokens="auto")
    for _ in range(2):
        take_step(trainer, block)
    budgets = trainer.budgets
    step.figure("auto: tokens of a micro-batch", budgets.step.max_tokens, "tokens")
    step.figure("auto: reason", budgets.reason)
    step.check("auto: steps without halving", len(trainer.steps), limit="2, never halved",
               ok=len(trainer.steps) == 2 and "halved" not in budgets.reason)  # fmt: skip
    if step.on_cuda:
        used = torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(0).total_memory
        step.figure("auto: reserved, share of the GPU", used)


if __name__ == "__main__":
    main(run)
