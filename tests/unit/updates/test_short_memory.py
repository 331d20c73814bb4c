"""What to change when an update runs out of memory: only what is possible with its settings."""

from typing import Any

import pytest

from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates.settings import Settings
from selfreward.updates.short_memory import advice

SHARDED = LaunchSection(processes_per_node=2, sharding="fsdp")


def of(*, lora: str | None = None, launch: LaunchSection | None = None, **training: Any) -> str:
    section = LoraSection(base_dtype=lora) if lora else None  # type: ignore[arg-type]
    return advice(
        Settings(
            training=TrainingSection(**training),
            engine_dtype="bfloat16",
            lora=section,
            launch=launch or LaunchSection(),
        )
    )


@pytest.mark.parametrize(
    ("settings", "found", "do"),
    [
        ({}, "is auto, which was reduced as far as it can be, and gradient_checkpointing is false",
         "set training.gradient_checkpointing: true, and run the same command again"),
        ({"micro_batch_tokens": 4096}, "is 4096, and",
         "lower training.micro_batch_tokens or set training.gradient_checkpointing: true, and run"),
        ({"micro_batch_tokens": None, "gradient_checkpointing": True}, "is null, and gradient_checkpointing is true",
         "; set training.micro_batch_tokens, and run the same command again"),
        ({"gradient_checkpointing": 4}, "gradient_checkpointing is 4", "set training.gradient_checkpointing: true"),
    ],
)  # fmt: skip
def test_what_may_change_in_a_run_comes_first(settings: dict[str, Any], found: str, do: str) -> None:
    text = of(**settings)
    assert found in text and do in text


@pytest.mark.parametrize(
    ("settings", "ways"),
    [
        ({}, "training.optimizer: adamw_8bit or adapters (models.policy.lora) or launch.sharding: fsdp on more GPUs"),
        ({"optimizer": "adamw_8bit"}, "adapters (models.policy.lora) or a GPU with more memory"),
        ({"lora": "bfloat16"}, "models.policy.lora.base_dtype: nf4 or launch.sharding: fsdp on more GPUs"),
        ({"lora": "nf4"}, "a GPU with more memory"),
        ({"launch": SHARDED}, "adapters (models.policy.lora) or launch.sharding: fsdp on more GPUs"),
        ({"launch": SHARDED, "lora": "bfloat16"}, "launch.sharding: fsdp on more GPUs"),
    ],
)
def test_nothing_impossible_is_advised(settings: dict[str, Any], ways: str) -> None:
    text = of(gradient_checkpointing=True, **settings)
    assert text.endswith(f"gradient_checkpointing is true; a new run may need less with {ways}")
