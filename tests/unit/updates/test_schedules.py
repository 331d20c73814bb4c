"""Learning rates of each step, against transformers' schedulers and against values by hand."""

from typing import Any

import pytest
import torch
from transformers import get_scheduler

from selfreward.recipe import TrainingSection
from selfreward.updates.schedules import learning_rate

NUM_STEPS, RATE = 20, 3e-4


def rates(num_steps: int = NUM_STEPS, **changes: Any) -> list[float]:
    section = TrainingSection(learning_rate=RATE, **changes)
    return [learning_rate(section, step, num_steps=num_steps) for step in range(num_steps)]


def rates_of_transformers(name: str, *, warmup: int, **settings: Any) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=warmup, num_training_steps=NUM_STEPS, scheduler_specific_kwargs=settings
    )
    found = []
    for _ in range(NUM_STEPS):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("name", ["linear", "cosine", "constant_with_warmup"])
@pytest.mark.parametrize("warmup", [{}, {"warmup_steps": 7}, {"warmup_ratio": 0.33}, {"warmup_steps": 20}])
def test_schedules_equal_those_of_transformers_bit_for_bit(name: Any, warmup: dict[str, Any]) -> None:
    num = warmup.get("warmup_steps", 7 if warmup else 0)  # 0.33 of 20 steps, rounded up
    assert rates(lr_scheduler=name, **warmup) == rates_of_transformers(name, warmup=num)


def test_a_cosine_with_a_minimum_equals_that_of_transformers_bit_for_bit() -> None:
    ours = rates(lr_scheduler="cosine", warmup_steps=4, min_lr_ratio=0.1)
    assert ours == rates_of_transformers("cosine_with_min_lr", warmup=4, min_lr_rate=0.1)
    assert ours[4] == RATE and min(ours[4:]) > 0.1 * RATE


def test_a_linear_schedule_with_a_minimum() -> None:
    """Decay to a tenth, as in Self-Rewarding: after 4 warm-up steps, each step is lower by a 16th of the difference."""
    ours = rates(lr_scheduler="linear", warmup_steps=4, min_lr_ratio=0.1)
    expected = [RATE * step / 4 for step in range(4)] + [RATE * (1 - 0.9 * k / 16) for k in range(16)]
    assert ours == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "end"), [("linear", 0.2), ("cosine", 0.2), ("constant", 1.0)])
def test_steps_beyond_the_schedule_have_its_last_rate(name: Any, end: float) -> None:
    section = TrainingSection(learning_rate=RATE, lr_scheduler=name, min_lr_ratio=end if name != "constant" else 0.0)
    found = [learning_rate(section, step, num_steps=10) for step in (10, 11, 25)]
    assert found == pytest.approx([RATE * end] * 3)


def test_warm_up_may_be_longer_than_training() -> None:
    assert rates(num_steps=3, warmup_steps=150) == pytest.approx([0.0, RATE / 150, 2 * RATE / 150])
