"""Seeded pairs of random tokens with the lengths of chats and of judgments, and the minimum work of their update."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

PARTS = ["prompt_ids", "chosen_ids", "rejected_ids"]
Draw = Callable[[np.random.Generator, int], NDArray[np.int64]]
# Pairs of the warm-up step have the set's lengths divided by this, but at least SHORTEST tokens.
WARM_UP_DIVISOR = 8
SHORTEST = 8


def uniform(low: int, high: int) -> Draw:
    return lambda rng, n: rng.integers(low, high + 1, size=n)


def log_normal(median: float, sigma: float, *, low: int, high: int) -> Draw:
    return lambda rng, n: np.clip(rng.lognormal(np.log(median), sigma, size=n), low, high).astype(np.int64)


@dataclass(frozen=True)
class Lengths:
    """Distributions of the lengths of prompts and responses, in tokens."""

    prompt: Draw
    response: Draw


LENGTHS = {
    "chat": Lengths(uniform(40, 160), log_normal(150, 0.5, low=16, high=512)),
    "judge": Lengths(uniform(500, 800), uniform(40, 120)),
}


@dataclass(frozen=True)
class Sharing:
    """All prompts share their first `rubric_tokens` tokens; K responses of a prompt make K // 2 pairs."""

    rubric_tokens: int = 0
    responses_per_prompt: int = 2


def write_pairs(
    path: Path, lengths: Lengths, *, vocabulary: int, pairs_per_step: int, num_steps: int, seed: int, sharing: Sharing
) -> None:
    """Write `num_steps` * `pairs_per_step` pairs in training order; the pairs of the first step are short."""
    rng = np.random.default_rng(seed)
    pairs_per_prompt = sharing.responses_per_prompt // 2
    num_pairs = pairs_per_step * num_steps
    divisor_B = np.where(np.arange(num_pairs) < pairs_per_step, WARM_UP_DIVISOR, 1)
    prompt_B = np.maximum(lengths.prompt(rng, num_pairs) // divisor_B, SHORTEST)
    chosen_B = np.maximum(lengths.response(rng, num_pairs) // divisor_B, SHORTEST)
    rejected_B = np.maximum(lengths.response(rng, num_pairs) // divisor_B, SHORTEST)

    def tokens(n: int) -> NDArray[np.int64]:
        return rng.integers(0, vocabulary, size=n)

    rubric = tokens(sharing.rubric_tokens)
    rows: list[dict[str, Any]] = []
    for index, (prompt, chosen, rejected) in enumerate(zip(prompt_B, chosen_B, rejected_B, strict=True)):
        if index % pairs_per_prompt == 0:
            shared = np.concatenate([rubric, tokens(max(prompt - len(rubric), SHORTEST))])
        rows.append(
            {
                "id": f"pair-{index}",
                "prompt_id": f"prompt-{index // pairs_per_prompt}",
                "chosen_id": f"chosen-{index}",
                "rejected_id": f"rejected-{index}",
                "prompt_token_ids": shared,
                "chosen_token_ids": tokens(chosen),
                "rejected_token_ids": tokens(rejected),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), path)


def read_rows(path: Path, num_pairs: int) -> list[dict[str, list[int]]]:
    """Read the first pairs of a file of `write_pairs`, under TRL's names prompt_ids, chosen_ids, rejected_ids."""
    table = pq.read_table(path, columns=["prompt_token_ids", "chosen_token_ids", "rejected_token_ids"])
    rows: list[dict[str, list[int]]] = table.rename_columns(PARTS).slice(0, num_pairs).to_pylist()
    return rows


@dataclass(frozen=True)
class Work:
    """Work of some pairs. `tokens` counts the prompt twice, as two plain sequences would; `flops` does not."""

    tokens: int
    flops: float


def work(pairs: Sequence[dict[str, list[int]]], config: Any) -> Work:
    """Return the minimum work of one update on rows `prompt_ids`, `chosen_ids`, `rejected_ids`, in FLOPs.

    The work is three times that of the forward pass (the backward pass costs twice as much as the forward pass). The
    forward pass has, for each distinct token, that is for each node of the trie of the sequences, 2 * (weights of the
    layers) + 4 * layers * (width of all query heads) * (tokens it attends to), and for each response token 2 * hidden *
    vocabulary of the output layer. No padding, no reference pass, no recomputation; norms, rotary embeddings and
    softmax are not counted.
    """
    sequences = sorted([*row["prompt_ids"], *row[name]] for row in pairs for name in ("chosen_ids", "rejected_ids"))
    distinct = attended = 0
    before: list[int] = []
    for sequence in sequences:
        shared = _common_prefix(before, sequence)
        distinct += len(sequence) - shared
        attended += (len(sequence) * (len(sequence) + 1) - shared * (shared + 1)) // 2
        before = sequence
    labels = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in pairs)
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    attention, mlp = config.hidden_size * (2 * queries + 2 * keys), 3 * config.hidden_size * config.intermediate_size
    forward = (
        2 * config.num_hidden_layers * (attention + mlp) * distinct
        + 4 * config.num_hidden_layers * queries * attended
        + 2 * config.hidden_size * config.vocab_size * labels
    )
    return Work(tokens=sum(map(len, sequences)), flops=3.0 * forward)


def _common_prefix(one: list[int], other: list[int]) -> int:
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
