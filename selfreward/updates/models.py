"""Models and tokenizers from local folders, as plain `transformers` loads them."""

from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from selfreward.errors import StoreError
from selfreward.model_files.reading import reading_model


def load_model(folder: Path, *, dtype: str, trust_remote_code: bool, with_weights: bool = True) -> PreTrainedModel:
    """Load a model on the CPU without dropout: sampling used none, and it would make policy and reference differ.

    `dtype` is the name of a torch dtype, or `auto` for the stored one. Without weights, the parameters are on the meta
    device and take no memory; another process will give their values.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    _check(folder)
    with reading_model(f"model {folder}: config.json", kind=StoreError):
        config = AutoConfig.from_pretrained(folder, **options)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    wanted = dtype if dtype == "auto" else getattr(torch, dtype)
    model: PreTrainedModel
    if with_weights:
        model = AutoModelForCausalLM.from_pretrained(
            folder, config=config, dtype=wanted, use_safetensors=True, **options
        )
    else:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(config, dtype=wanted, trust_remote_code=trust_remote_code)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # dropout that no key of the configuration sets
            module.p = 0.0
    return model


def load_tokenizer(folder: Path, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    _check(folder)
    with reading_model(f"model {folder}: its tokenizer", kind=StoreError):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=trust_remote_code
        )
    return tokenizer


def _check(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise StoreError(
            f"{folder}: no config.json; it must be a model folder that transformers loads; give a checkpoint's folder"
        )
