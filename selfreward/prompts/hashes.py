"""Hashes of prompts and gold pairs, by which a resumed run detects that they changed."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from selfreward.records import GoldPair, Prompt


def size_and_hash(prompts: Sequence[Prompt]) -> dict[str, Any]:
    return {"num_prompts": len(prompts), "sha256": prompts_sha256(prompts), **_references_sha256(prompts)}


def _references_sha256(prompts: Sequence[Prompt]) -> dict[str, str]:
    """Return the hash of the reference answers, which is apart from that of the prompts; nothing without any."""
    if not any(prompt.reference for prompt in prompts):
        return {}
    rows = json.dumps([[prompt.id, prompt.reference] for prompt in prompts])
    return {"references_sha256": hashlib.sha256(rows.encode()).hexdigest()}


def prompts_sha256(prompts: Iterable[Prompt]) -> str:
    """Return the hash of ids, turns and checks in order, by which a resumed run detects changed prompts."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(_row(prompt) + b"\n")
    return digest.hexdigest()


def pairs_sha256(pairs: Iterable[GoldPair]) -> str:
    """Return the hash as in `prompts_sha256`, including the two responses of each pair."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(_row(pair.prompt, pair.chosen, pair.rejected) + b"\n")
    return digest.hexdigest()


def _row(prompt: Prompt, *texts: str) -> bytes:
    turns = [[message.role, message.content] for message in prompt.messages]
    return json.dumps([prompt.id, turns, [dict(check) for check in prompt.checks], *texts], sort_keys=True).encode()
