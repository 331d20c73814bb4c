"""Preference pairs as the trainer reads them: token ids only, exactly as they were sampled."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfreward.errors import StoreError, TrainingError

# Columns of records.PreferencePair, and TRL's names of them.
TRL_NAMES = {
    "id": "id",
    "chosen_id": "chosen_id",
    "rejected_id": "rejected_id",
    "prompt_token_ids": "prompt_ids",
    "chosen_token_ids": "chosen_ids",
    "rejected_token_ids": "rejected_ids",
}


# Ranges of a pair's weight in the loss, and of the probability that the chosen response is the better one. Both are 1
# where the file has no such column.
RANGES = {"weight": (0.0, float("inf")), "label": (0.0, 1.0)}
TOKENS = ("prompt_token_ids", "chosen_token_ids", "rejected_token_ids")


def read_pairs(path: Path, *, max_pairs: int | None, seed: int) -> tuple[pa.Table, int]:
    """Return the columns `id`, `chosen_id`, `rejected_id`, `prompt_ids`, `chosen_ids`, `rejected_ids`, `weight` and
    `label`, and the number of pairs in the file.

    When the file has more than `max_pairs`, a seeded random subset of that size is returned, in file order.
    """
    wanted = [*TRL_NAMES, *RANGES]
    try:
        present = set(pq.read_schema(path).names)
        table = pq.read_table(path, columns=[name for name in wanted if name in present])
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(
            f"{path}: {error}; it must be a parquet file of preference pairs; make the pairs again"
        ) from error
    if missing := [name for name in TRL_NAMES if name not in present]:
        raise StoreError(
            f"{path}: no column {', '.join(missing)}; it must have the fields of PreferencePair; make the pairs again"
        )
    _check(path, table)
    num_available = table.num_rows
    if max_pairs is not None and num_available > max_pairs:
        rows = np.random.default_rng(seed).choice(num_available, size=max_pairs, replace=False)
        table = table.take(pa.array(np.sort(rows)))
    for name in RANGES.keys() - present:
        table = table.append_column(name, pa.array([1.0] * table.num_rows))
    table = table.select(wanted).rename_columns([*TRL_NAMES.values(), *RANGES])
    return table.combine_chunks(), num_available


def _check(path: Path, table: pa.Table) -> None:
    if table.num_rows == 0:
        raise TrainingError(
            f"{path}: no pairs; at least one is needed; the report's funnel shows why prompts gave no pair"
        )
    for name in TOKENS:
        lengths = pc.fill_null(pc.list_value_length(table[name]), 0)
        if pc.min(lengths).as_py() == 0:
            pair = table["id"][pc.index(lengths, 0).as_py()].as_py()
            raise TrainingError(f"{path}: pair {pair}: {name} is empty; at least one token is needed; remove this pair")
    for name, (low, high) in RANGES.items():
        values = table[name].to_pylist() if name in table.column_names else []
        for row, value in enumerate(values):
            if value is None or not (low <= value <= high and math.isfinite(value)):
                raise TrainingError(
                    f"{path}: pair {table['id'][row].as_py()}: {name} is {value}; it must be a finite number from "
                    f"{low:g} to {high:g}; make the pairs again"
                )


def check_fits(pairs: pa.Table, *, vocabulary: int, context_tokens: int | None) -> None:
    """Check that the model can read every pair in full; nothing is truncated.

    Raises TrainingError naming the pair that is longer than the context, or that has an unknown token id.
    """
    prompt_B = pc.list_value_length(pairs["prompt_ids"])
    for name in ("chosen_ids", "rejected_ids"):
        length_B = pc.add(prompt_B, pc.list_value_length(pairs[name]))
        longest = pc.max(length_B).as_py()
        if context_tokens is not None and longest > context_tokens:
            pair = pairs["id"][pc.index(length_B, longest).as_py()].as_py()
            raise TrainingError(
                f"pair {pair}: {longest} tokens of prompt and {name}; the model's context is {context_tokens}; "
                "lower sampling.max_tokens or engine.context_tokens"
            )
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        ids = pc.list_flatten(pairs[name])
        for bad in (pc.min(ids).as_py(), pc.max(ids).as_py()):
            if not 0 <= bad < vocabulary:
                parent = pc.list_parent_indices(pairs[name])[pc.index(ids, bad).as_py()].as_py()
                raise TrainingError(
                    f"pair {pairs['id'][parent].as_py()}: token id {bad} in {name}; ids of this model are 0 to "
                    f"{vocabulary - 1}; the pairs were made with another model's tokenizer: make them with this one"
                )


def num_tokens(pairs: pa.Table) -> int:
    """Count the tokens of one pass without padding; each prompt counts twice, once with each response."""
    total = {
        name: pc.sum(pc.list_value_length(pairs[name])).as_py() for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    }
    return int(2 * total["prompt_ids"] + total["chosen_ids"] + total["rejected_ids"])
