"""One function: where a seed comes from."""

import hashlib
from collections.abc import Mapping
from typing import Final

SPLIT_SEED_NAMES: Final[Mapping[str, str]] = {"validation": "monitor", "second_validation": "reserve", "test": "seal"}
"""What seeds and prompt ids call these splits. They were named so once; with other strings a run draws other tokens."""


def seed_of(run_seed: int, iteration: int, stage: str, item: str, *, bits: int = 62) -> int:
    """A seed in [0, 2**bits) that depends on all four arguments and on nothing else.

    Seeds are hashes because vLLM gives draw i of a request the request's seed plus i: consecutive
    seeds would repeat draws.
    """
    key = f"{run_seed}\x1f{iteration}\x1f{stage}\x1f{item}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") % (1 << bits)
