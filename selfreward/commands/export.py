"""Export of preference pairs for other trainers, as conversational rows for TRL, axolotl and LLaMA-Factory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selfreward.errors import RecipeError
from selfreward.store import Store
from selfreward.store.files import write_atomically
from selfreward.tables import PAIRS, PROMPTS


def export_pairs(run: Path, file: Path, *, iteration: int | None = None) -> int:
    """Write the pairs of a run (or of one iteration) to a .jsonl or .parquet file; return their number.

    A row contains `prompt`, `chosen` and `rejected` as lists of messages (TRL, axolotl), `chosen_message` and
    `rejected_message` as single messages (LLaMA-Factory), the two scores and the iteration.
    Raises RecipeError for another suffix or an iteration without pairs, StoreError when `run` is not a run folder.
    Also reads run folders of version 0.1.
    """
    if file.suffix not in (".jsonl", ".parquet"):
        raise RecipeError(f"--pairs {file}: suffix {file.suffix!r}; allowed are .jsonl and .parquet; rename the file")
    store = Store(run, write=False, earlier=True)
    found = _with_pairs(store)
    rows = [row for i in found if iteration in (None, i) for row in _rows(store, i)]
    if not rows:
        wanted = "this run" if iteration is None else f"iteration {iteration}"
        raise RecipeError(
            f"{run}: {wanted} has no pairs; iterations with pairs: {found or 'none'}; use one of these, or continue "
            "the run"
        )
    _write(rows, file)
    return len(rows)


def _with_pairs(store: Store) -> list[int]:
    found: list[int] = []
    while store.has(len(found) + 1, PAIRS):
        found.append(len(found) + 1)
    return found


def _rows(store: Store, iteration: int) -> Iterator[dict[str, Any]]:
    prompts = {prompt.id: prompt for prompt in store.read(iteration, PROMPTS)}
    for pair in store.read(iteration, PAIRS):
        chosen = {"role": "assistant", "content": pair.chosen_text}
        rejected = {"role": "assistant", "content": pair.rejected_text}
        yield {
            "prompt": [{"role": m.role, "content": m.content} for m in prompts[pair.prompt_id].messages],
            "chosen": [chosen],
            "rejected": [rejected],
            "chosen_message": chosen,
            "rejected_message": rejected,
            "score_chosen": pair.chosen_score,
            "score_rejected": pair.rejected_score,
            "iteration": iteration,
        }


def _write(rows: list[dict[str, Any]], file: Path) -> None:
    def write(path: Path) -> None:
        if file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            path.write_text("".join(lines), encoding="utf-8")

    write_atomically(file, write)
