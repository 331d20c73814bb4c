"""The learning rate of each optimizer step.

Paper: linear and cosine decay (1608.03983, equation 5, without restarts), both with linear warm-up, as in transformers.
Self-Rewarding (2401.10020, section 3.1.3) decays from 1e-6 to a tenth of it (`min_lr_ratio: 0.1`); Online DPO
(2402.04792) warms up for 150 steps (`warmup_steps: 150`).
"""

import math

from selfreward.recipe import TrainingSection


def learning_rate(section: TrainingSection, step: int, *, num_steps: int) -> float:
    """Return the learning rate of step `step` (from 0) of `num_steps`; with warm-up it is 0 at step 0, as in
    transformers."""
    return section.learning_rate * _factor(section, step, num_steps=num_steps)


def num_warmup_steps(section: TrainingSection, num_steps: int) -> int:
    return math.ceil(section.warmup_ratio * num_steps) if section.warmup_steps is None else section.warmup_steps


def _factor(section: TrainingSection, step: int, *, num_steps: int) -> float:
    """Return the factor of the learning rate, in [0, 1]; decaying schedules end at `min_lr_ratio`."""
    warmup = num_warmup_steps(section, num_steps)
    if step < warmup:
        return step / warmup
    lowest, num_decaying = section.min_lr_ratio, max(1, num_steps - warmup)
    match section.lr_scheduler:
        case "linear":
            return lowest + (1 - lowest) * (max(0, num_steps - step) / num_decaying)
        case "cosine":
            done = min(1.0, (step - warmup) / num_decaying)
            return lowest + (1 - lowest) * (0.5 * (1 + math.cos(math.pi * done)))
        case "constant" | "constant_with_warmup":
            return 1.0
