"""Checksums of tensors, computed on the device that holds them.

A whole model is hashed at its start, at each wake and at each weight sync, so a cryptographic hash, for which all bytes
would travel to the host, is too slow: 15 GB take ten seconds. These sums read the memory a few times and are exact:
every 8 bytes are mixed with their position by a bijection and added modulo 2^64. A change of one word is always found,
any other one is missed with a probability of 2^-64; integer sums do not depend on the order of a reduction.
"""

from typing import Any, Final

import torch

_CHUNK: Final = {"cpu": 2**15, "cuda": 2**22}
"""Words at a time: what fits into a CPU's cache, or keeps a GPU busy with some copies of 32 MiB."""
_ODD: Final = -7046029254386353131  # 0x9E3779B97F4A7C15, as in splitmix64
_MIX: Final = -4658895280553007687  # 0xBF58476D1CE4E5B9


def checksum(tensor: torch.Tensor) -> str:
    """Return dtype, shape and a 64-bit sum of the bytes of a tensor."""
    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    if flat.numel() % 8 or flat.storage_offset() % 8:
        flat = torch.nn.functional.pad(flat, (0, -flat.numel() % 8))
    words = flat.view(torch.int64)
    total, chunk = words.new_zeros(()), _CHUNK[words.device.type]
    for start in range(0, words.numel(), chunk):
        total += _mixed(words[start : start + chunk], start).sum()
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}:{int(total) % 2**64:016x}"


def _mixed(words: torch.Tensor, start: int) -> torch.Tensor:
    """Return a bijection of each word that depends on its position. All products are modulo 2^64."""
    mixed = torch.arange(start, start + words.numel(), device=words.device).mul_(_ODD).add_(words)
    for _ in range(2):
        mixed.mul_(_MIX).bitwise_xor_((mixed >> 32).bitwise_and_(0xFFFFFFFF))
    return mixed


def state_of(model: Any) -> dict[str, dict[str, str]]:
    """Return the checksum of every named parameter and buffer of a model, by name."""
    with torch.inference_mode():
        return {
            "parameters": {name: checksum(tensor) for name, tensor in model.named_parameters()},
            "buffers": {name: checksum(tensor) for name, tensor in model.named_buffers()},
        }
