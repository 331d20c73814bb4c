"""What an update of models from 0.5B to 72B takes on one GPU and on eight: the table of docs/gpu.md.

    python benchmarks/what_fits.py (its output is in docs/gpu.md)

Memory is counted as `selfreward plan` counts it (`selfreward/updates/memory.py`): on fake tensors, from shapes alone.
No model is loaded, and none of these sizes has been measured on a GPU.
"""

import sys
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from selfreward.plan.gpus import GPUS
from selfreward.plan.memory import ASLEEP_BYTES
from selfreward.recipe import LaunchSection, LoraSection, TrainingSection
from selfreward.updates.memory import training_memory
from selfreward.updates.settings import Settings

GIB = 2**30
SMALLEST = 2048  # tokens of the longest pair that must fit

# name: hidden, intermediate, layers, heads, key-value heads, vocabulary, tied embeddings; from the models' config.json.
QWEN = {
    "Qwen2.5-0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "Qwen2.5-1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "Qwen2.5-3B": (2048, 11008, 36, 16, 2, 151936, True),
    "Qwen2.5-7B": (3584, 18944, 28, 28, 4, 152064, False),
    "Qwen2.5-14B": (5120, 13824, 48, 40, 8, 152064, False),
    "Qwen2.5-32B": (5120, 27648, 64, 40, 8, 152064, False),
    "Qwen2.5-72B": (8192, 29568, 80, 64, 8, 152064, False),
}


@dataclass(frozen=True)
class Way:
    """A way of training: keys of `training`, adapters or not, and sharding on several GPUs."""

    name: str
    training: dict[str, Any]
    lora: LoraSection | None = None
    is_shardable: bool = True


CHECKPOINTING = {"gradient_checkpointing": True}
HALF = {**CHECKPOINTING, "weights_dtype": "bfloat16"}
WAYS = (
    Way("float32, `adamw`", CHECKPOINTING),
    Way("float32, `adamw_offload`", {**CHECKPOINTING, "optimizer": "adamw_offload"}, is_shardable=False),
    Way("bfloat16, `adamw_8bit`", {**HALF, "optimizer": "adamw_8bit"}, is_shardable=False),
    Way("LoRA on bfloat16", CHECKPOINTING, LoraSection(base_dtype="bfloat16")),
    Way("LoRA on nf4", CHECKPOINTING, LoraSection(base_dtype="nf4"), is_shardable=False),
)


def config_of(name: str) -> PretrainedConfig:
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = QWEN[name]
    return AutoConfig.for_model(
        "qwen2", hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocabulary, tie_word_embeddings=tied,
    )  # fmt: skip


def cell(config: PretrainedConfig, way: Way, *, count: int, gib: float) -> str:
    """Return the fixed memory in GiB and the tokens of a micro-batch, or what is missing."""
    if count > 1 and not way.is_shardable:
        return "–"
    launch = LaunchSection(processes_per_node=count, sharding="fsdp") if count > 1 else LaunchSection()
    settings = Settings(training=TrainingSection(**way.training), engine_dtype="bfloat16", lora=way.lora, launch=launch)
    found = training_memory(config, settings, on_cuda=True)
    tokens = found.tokens_that_fit(int(gib * GIB) - ASLEEP_BYTES)
    if tokens < SMALLEST:
        return f"no ({found.peak(SMALLEST, SMALLEST, SMALLEST) / GIB:,.0f})"
    return f"{found.fixed / GIB:,.0f} + {tokens / 1000:.0f}k"


def main() -> None:
    gpus = {gpu.name: gpu.memory_gib for gpu in GPUS if gpu.name in ("H100", "H200")}
    columns = [(count, name) for count in (1, 8) for name in gpus]
    print("| model | way | " + " | ".join(f"{count} x {name}" for count, name in columns) + " |")
    print("|---" * (len(columns) + 2) + "|")
    for model in QWEN:
        config = config_of(model)
        for way in WAYS:
            cells = [cell(config, way, count=count, gib=gpus[name]) for count, name in columns]
            print(f"| {model} | {way.name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
