"""Seeds, derived from names by one function."""

import hashlib
from collections.abc import Mapping
from typing import Final

SPLIT_SEED_NAMES: Final[Mapping[str, str]] = {"validation": "monitor", "second_validation": "reserve", "test": "seal"}
"""The former names of these splits, used in seeds and prompt ids: other strings would change the sampled tokens."""


def seed_of(run_seed: int, iteration: int, stage: str, item: str, *, bits: int = 62) -> int:
    """Return a seed in [0, 2**bits) that depends only on the four arguments.

    Seeds are hashes because vLLM gives sample i of a request the request's seed plus i: consecutive seeds would repeat
    samples.
    """
    key = f"{run_seed}\x1f{iteration}\x1f{stage}\x1f{item}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % (1 << bits)
