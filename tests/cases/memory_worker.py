"""The resident memory of a process that takes optimizer steps, against the prediction: python memory_worker.py JSON.

The JSON has `training`, `lora` (a dtype of the base, or null), `vocabulary` and `folder`. It prints bytes as JSON.
"""

import gc
import json
import re
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from selfreward.recipe import LoraSection, TrainingSection
from selfreward.updates.batches import PairBlock
from selfreward.updates.memory import training_memory
from selfreward.updates.models import load_model
from selfreward.updates.packing.layout import PairTokens
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Trainer

LENGTHS = (512, 200, 256)  # prompt, chosen and rejected
SIZE = {
    "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 8,
    "num_key_value_heads": 4, "tie_word_embeddings": True,
}  # fmt: skip


def resident(name: str) -> int:
    """Return VmRSS, or VmHWM, the largest since `forget_peak`."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def forget_peak() -> None:
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")


def take_steps(config: PretrainedConfig, settings: Settings, folder: Path) -> int:
    """Take two steps, each on two pairs one by one, and return the peak of the second."""
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    gc.collect()
    generator = torch.Generator().manual_seed(0)
    tokens = [tuple(torch.randint(3, 600, (n,), generator=generator).tolist()) for n in LENGTHS * 2]
    block = PairBlock(("a", "b"), (PairTokens(*tokens[:3]), PairTokens(*tokens[3:])), torch.ones(2), torch.ones(2))
    dtype = settings.lora.base_dtype if settings.lora else settings.training.weights_dtype
    model = load_model(folder, dtype=dtype, trust_remote_code=False)
    trainer = Trainer(model, settings=settings, first=block, num_steps=3, seed=0)
    del model
    for _ in range(2):
        forget_peak()
        trainer.step(block, ([-10.0] * 2, [-10.0] * 2), [0, 1])
    peak = resident("VmHWM")
    trainer.close()
    return peak


def main(asked: dict[str, Any]) -> None:
    section = TrainingSection(**asked["training"], batch_size=2, micro_batch_size=1, micro_batch_tokens=None)
    lora = LoraSection(base_dtype=asked["lora"]) if asked["lora"] else None
    settings = Settings(training=section, engine_dtype="bfloat16", lora=lora)
    folder = Path(asked["folder"])
    config = AutoConfig.for_model("llama", **SIZE | {"vocab_size": asked["vocabulary"]})
    take_steps(config, settings, folder / "first")  # imports, compiled code, threads' stacks and buffers stay
    gc.collect()
    before = resident("VmRSS")
    memory = training_memory(config, settings, on_cuda=False)
    num_prompt, *responses = LENGTHS
    num_labels, packed = sum(responses), section.packing == "shared_prefix"
    num_tokens = num_prompt + num_labels if packed else 2 * (num_prompt + max(responses))
    predicted = memory.peak(num_tokens, num_labels, num_prompt + max(responses))
    measured = take_steps(config, settings, folder / "second") - before
    print(json.dumps({"predicted": predicted, "measured": measured}))


main(json.loads(sys.argv[1]))
