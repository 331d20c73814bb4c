"""Speed of training steps by tokens per micro-batch, with and without checkpointing: tokens/s, MFU, peak."""

from typing import Any

import torch
from models import LLAMA_1B, SMALL, config_of, random_model, random_pairs, take_step, trainer_of
from speed import matrix_rate, now, peak_gib, reset_peak
from step import Step, main

from selfreward.updates.budgets import Budgets
from selfreward.updates.packing.micro_batches import Budget
from selfreward.updates.trainer import Trainer

MIN_MFU = 0.45


def run(step: Step) -> None:
    config = config_of("llama", LLAMA_1B if step.on_cuda else SMALL)
    sizes, pair_tokens = ((16384, 2048, 8192, 32768), 1024) if step.on_cuda else ((256, 512), 128)
    rate = matrix_rate(step.device)
    step.figure("matrix products", rate / 1e12, "TFLOP/s")
    shares = []
    for checkpointing in (False, True):
        reset_peak(step.device)
        model = random_model(config, device=step.device)
        flops = _flops_per_token(model, config)
        pairs = random_pairs(max(sizes) // pair_tokens, pair_tokens, vocabulary=config.vocab_size)
        trainer, block = trainer_of(model, pairs, gradient_checkpointing=checkpointing, micro_batch_tokens=max(sizes))
        for size in sizes:
            name = f"{size} tokens{', checkpointing' if checkpointing else ''}"
            try:
                seconds, peak = _timed(trainer, block, size, step.device)
            except torch.OutOfMemoryError:
                trainer.optimizer.zero_grad()
                step.figure(name, "out of memory")
                continue
            num_tokens = trainer.steps[-1].num_computed_tokens
            step.figure(f"{name}: tokens/s", num_tokens / seconds, "tokens/s")
            step.figure(f"{name}: MFU", num_tokens * flops / seconds / rate)
            step.figure(f"{name}: peak", peak, "GiB")
            shares.append(num_tokens * flops / seconds / rate)
        trainer.close()
        del trainer, model
    step.at_least("sizes that were timed", len(shares), 1)
    step.figure("best MFU", max(shares, default=0.0))
    if step.on_cuda:
        step.at_least("MFU at the best size", max(shares, default=0.0), MIN_MFU)


def _flops_per_token(model: Any, config: Any) -> float:
    """Return 6 for each weight of a matrix; the output layer computes the half of the tokens that are labels."""
    head = config.vocab_size * config.hidden_size
    layers = sum(p.numel() for name, p in model.named_parameters() if p.dim() == 2 and ".layers." in name)
    return 6 * (layers + head / 2)


def _timed(trainer: Trainer, block: Any, size: int, device: str) -> tuple[float, float]:
    """Return the seconds of a step after one that warms up, the fastest of two, and the peak in GiB."""
    trainer.budgets = Budgets(Budget(size), Budget(size), "of this measurement")
    reset_peak(device)
    take_step(trainer, block)
    times = []
    for _ in range(2):
        started = now(device)
        take_step(trainer, block)
        times.append(now(device) - started)
    return min(times), peak_gib(device)


if __name__ == "__main__":
    main(run)
