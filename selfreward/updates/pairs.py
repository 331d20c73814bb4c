"""Preference pairs as the trainer reads them: token ids only, exactly those that were sampled."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selfreward.errors import StoreError, TrainingError

# Columns of records.PreferencePair, and what TRL calls them.
TRL_NAMES = {
    "id": "id",
    "chosen_id": "chosen_id",
    "rejected_id": "rejected_id",
    "prompt_token_ids": "prompt_ids",
    "chosen_token_ids": "chosen_ids",
    "rejected_token_ids": "rejected_ids",
}


# What a pair counts in the loss, and the probability that chosen is the better one; 1 where the file has no column.
RANGES = {"weight": (0.0, float("inf")), "label": (0.0, 1.0)}
TOKENS = ("prompt_token_ids", "chosen_token_ids", "rejected_token_ids")


def read_pairs(path: Path, *, max_pairs: int | None, seed: int) -> tuple[pa.Table, int]:
    """Columns `id`, `chosen_id`, `rejected_id`, `prompt_ids`, `chosen_ids`, `rejected_ids`, `weight`, `label`, and how
    many pairs the file holds.

    With more than `max_pairs` in the file, a seeded subset of that many, in the order of the file.
    """
    wanted = [*TRL_NAMES, *RANGES]
    try:
        present = set(pq.read_schema(path).names)
        table = pq.read_table(path, columns=[name for name in wanted if name in present])
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: {error}; a parquet file of preference pairs; make the pairs anew") from error
    if missing := [name for name in TRL_NAMES if name not in present]:
        raise StoreError(f"{path}: no column {', '.join(missing)}; the fields of PreferencePair; make the pairs anew")
    _check(path, table)
    num_available = table.num_rows
    if max_pairs is not None and num_available > max_pairs:
        kept = np.random.default_rng(seed).choice(num_available, size=max_pairs, replace=False)
        table = table.take(pa.array(np.sort(kept)))
    for name in RANGES.keys() - present:
        table = table.append_column(name, pa.array([1.0] * table.num_rows))
    table = table.select(wanted).rename_columns([*TRL_NAMES.values(), *RANGES])
    return table.combine_chunks(), num_available


def _check(path: Path, table: pa.Table) -> None:
    if table.num_rows == 0:
        raise TrainingError(f"{path}: no pairs; at least one; see why prompts gave no pair in the report's funnel")
    for name in TOKENS:
        lengths = pc.fill_null(pc.list_value_length(table[name]), 0)
        if pc.min(lengths).as_py() == 0:
            pair = table["id"][pc.index(lengths, 0).as_py()].as_py()
            raise TrainingError(f"{path}: pair {pair}: {name} is empty; at least one token; leave this pair out")
    for name, (low, high) in RANGES.items():
        values = table[name].to_pylist() if name in table.column_names else []
        for row, value in enumerate(values):
            if value is None or not (low <= value <= high and math.isfinite(value)):
                raise TrainingError(
                    f"{path}: pair {table['id'][row].as_py()}: {name} is {value}; a finite number from {low:g} to "
                    f"{high:g}; make the pairs anew"
                )


def check_fits(pairs: pa.Table, *, vocabulary: int, context_tokens: int | None) -> None:
    """Nothing is cut: a pair that the model cannot read whole is refused, by name."""
    prompt_B = pc.list_value_length(pairs["prompt_ids"])
    for name in ("chosen_ids", "rejected_ids"):
        length_B = pc.add(prompt_B, pc.list_value_length(pairs[name]))
        longest = pc.max(length_B).as_py()
        if context_tokens is not None and longest > context_tokens:
            pair = pairs["id"][pc.index(length_B, longest).as_py()].as_py()
            raise TrainingError(
                f"pair {pair}: {longest} tokens of prompt and {name}; the model reads {context_tokens}; "
                "lower sampling.max_tokens or engine.context_tokens"
            )
    for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
        ids = pc.list_flatten(pairs[name])
        for bad in (pc.min(ids).as_py(), pc.max(ids).as_py()):
            if not 0 <= bad < vocabulary:
                parent = pc.list_parent_indices(pairs[name])[pc.index(ids, bad).as_py()].as_py()
                raise TrainingError(
                    f"pair {pairs['id'][parent].as_py()}: token id {bad} in {name}; 0 to {vocabulary - 1} in this "
                    "model; the pairs were made with another model's tokenizer"
                )


def num_tokens(pairs: pa.Table) -> int:
    """Tokens of one pass without padding: the prompt counts twice, once with each response."""
    total = {
        name: pc.sum(pc.list_value_length(pairs[name])).as_py() for name in ("prompt_ids", "chosen_ids", "rejected_ids")
    }
    return int(2 * total["prompt_ids"] + total["chosen_ids"] + total["rejected_ids"])
