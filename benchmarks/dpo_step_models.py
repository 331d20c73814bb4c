"""Llamas with random weights: the cost of an update does not depend on the values of the weights."""

import json
from collections.abc import Mapping
from pathlib import Path

SIZES: dict[str, dict[str, int]] = {
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 8192,
        "vocab_size": 128256,
    }
}


def write_random_llama(folder: Path, size: Mapping[str, int], *, tokenizer_of: Path) -> None:
    """Write a model folder with tied embeddings and the tokenizer of `tokenizer_of`; its ids must be below vocab_size.

    The weights are stored as bfloat16, to halve the file size; every contender loads them as the same float32 numbers.
    """
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    torch.manual_seed(0)
    config = LlamaConfig(
        **size,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def vocabulary(model: Path) -> int:
    """Number of token ids that both the model and its tokenizer have."""
    from transformers import AutoTokenizer

    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return min(int(config["vocab_size"]), len(AutoTokenizer.from_pretrained(model)))
