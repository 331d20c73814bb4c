"""Models and tokenizers from local folders, as plain `transformers` loads them."""

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState, init_empty_weights
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from selfreward.devices import computes_in_bfloat16
from selfreward.errors import StoreError
from selfreward.model_files.reading import reading_model


def load_model(folder: Path, *, dtype: str, trust_remote_code: bool, with_weights: bool = True) -> PreTrainedModel:
    """Load a model on the CPU without dropout: sampling used none, and it would make policy and reference differ.

    `dtype` is the name of a torch dtype, `auto` for the stored one, or `nf4` for linear layers in 4 bits (2305.14314),
    which are made on the device that trains. Without weights, the parameters are on the meta device and take no memory;
    another process will give their values.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    _check(folder)
    with reading_model(f"model {folder}: config.json", kind=StoreError):
        config = AutoConfig.from_pretrained(folder, **options)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    if dtype == "nf4":
        options |= _in_4_bits()
    else:
        options["dtype"] = dtype if dtype == "auto" else getattr(torch, dtype)
    model: PreTrainedModel
    if with_weights:
        model = AutoModelForCausalLM.from_pretrained(folder, config=config, use_safetensors=True, **options)
    else:
        with init_empty_weights(include_buffers=False):
            model = AutoModelForCausalLM.from_config(
                config, dtype=options["dtype"], trust_remote_code=trust_remote_code
            )
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # dropout that no key of the configuration sets
            module.p = 0.0
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # In a pass without gradients, bitsandbytes would pack the weights for a kernel that has no gradient.
            module.support_avx512bf16_for_cpu = False
    return model


def _in_4_bits() -> dict[str, Any]:
    """Return options of transformers: linear layers as 4-bit NormalFloats with quantised constants, but not the head.

    They are multiplied, and the other weights are stored, in bfloat16 where the GPU computes in it, else in float32.
    """
    on_cuda = torch.cuda.is_available()
    compute = torch.bfloat16 if computes_in_bfloat16() else torch.float32
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    device = PartialState().device if on_cuda else torch.device("cpu")
    return {"quantization_config": quantisation, "dtype": compute, "device_map": {"": device}}


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
