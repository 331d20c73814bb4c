"""How many tokens a micro-batch may have: as the recipe says, or as many as the memory holds.

The division of a step into micro-batches changes memory and speed, and the result only by rounding, so it may differ
between machines and after a resume.
"""

from dataclasses import dataclass, replace

import torch
from transformers import PretrainedConfig

from selfreward.updates.memory import TrainingMemory, countable_memory
from selfreward.updates.packing.micro_batches import Budget
from selfreward.updates.settings import Settings

DEFAULT_TOKENS = 2048  # on the CPU, where a larger micro-batch is no faster
MAX_PASS_TOKENS = 16_384  # of a pass without gradients: a larger one is no faster


@dataclass(frozen=True)
class Budgets:
    """The budgets of a step's micro-batches and of a pass without gradients, and why they are what they are."""

    step: Budget
    forward: Budget
    reason: str

    def halved(self, reason: str) -> "Budgets":
        """Return budgets of half the tokens, for a device whose memory did not suffice."""
        step, forward = (
            replace(budget, max_tokens=budget.max_tokens and max(1, budget.max_tokens // 2))
            for budget in (self.step, self.forward)
        )
        return Budgets(step, forward, reason)


def budgets_of(settings: Settings, config: PretrainedConfig, *, device: torch.device) -> Budgets:
    """Return the budgets of an update of a model with this configuration on `device`."""
    section = settings.training
    memory = countable_memory(config, settings, on_cuda=device.type == "cuda")
    tokens, reason = section.micro_batch_tokens, "set in the recipe"
    if tokens == "auto":
        tokens, reason = _auto(memory, device)
    packed = section.packing == "shared_prefix"
    step = Budget(tokens, section.micro_batch_size, packed)
    if memory is not None and section.micro_batch_tokens == "auto" and device.type == "cuda":
        step = replace(step, key_cost=memory.key_cost)  # a number in the recipe is one of tokens
    return Budgets(step, _forward(step, memory), reason)


def _auto(memory: TrainingMemory | None, device: torch.device) -> tuple[int, str]:
    if device.type != "cuda":
        return DEFAULT_TOKENS, "the default on a CPU"
    if memory is None:
        return DEFAULT_TOKENS, "the default, because the activations of this model cannot be counted"
    available = free_memory(device)
    tokens = memory.tokens_that_fit(available)
    reason = f"{available / 2**30:.1f} GiB are free, of which weights and states take {memory.fixed / 2**30:.1f}"
    # A pair that does not fit is a micro-batch of its own: it is tried, and an error says what to change.
    return max(tokens, 1), reason


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process may take on a CUDA device, with those that it has taken already: weights in 4
    bits are there from the beginning."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device))


def _forward(step: Budget, memory: TrainingMemory | None) -> Budget:
    """Return the budget of a pass that takes no more memory for activations than a micro-batch of a step."""
    if memory is None or step.max_tokens is None:
        return step
    larger = max(step.max_tokens, min(MAX_PASS_TOKENS, memory.tokens_without_gradients(step.max_tokens)))
    pairs = step.max_pairs and step.max_pairs * max(1, larger // step.max_tokens)
    return Budget(larger, pairs, step.shared_prefix, memory.key_cost_without_gradients if step.key_cost else 0.0)
