"""Log-probabilities that a training starts from, computed once and kept in the work folder.

One row per trained pair: under the reference, and, for the pairs that are measured after training, under the policy
at the start of the iteration. All are sums over the response's tokens, in nats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from selfreward.errors import StoreError
from selfreward.store.files import write_atomically


@dataclass(frozen=True)
class Reference:
    """`chosen` and `rejected` have one number for each pair; `start_*` have None where nothing is measured."""

    chosen: list[float]
    rejected: list[float]
    start_chosen: list[float | None]
    start_rejected: list[float | None]


def write(
    path: Path,
    ids: Sequence[str],
    chosen: Sequence[float],
    rejected: Sequence[float],
    *,
    measured: Sequence[int],
    start: tuple[Sequence[float], Sequence[float]],
) -> None:
    """`start` holds the policy's numbers for the rows `measured`, in that order."""
    columns = {"pair_id": ids, "chosen": chosen, "rejected": rejected}
    for name, values in zip(("start_chosen", "start_rejected"), start, strict=True):
        known = dict(zip(measured, values, strict=True))
        columns[name] = pa.array([known.get(row) for row in range(len(ids))], pa.float64())
    write_atomically(path, lambda temporary: pq.write_table(pa.table(columns), temporary))


def read(path: Path, ids: Sequence[str]) -> Reference:
    """Raises StoreError when the file does not belong to these pairs."""
    try:
        columns = pq.read_table(path).to_pydict()
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path}: {error}; the stored reference; remove the folder {path.parent}") from error
    if columns.pop("pair_id") != list(ids):
        raise StoreError(f"{path}: made for other pairs; those of this training; remove the folder {path.parent}")
    return Reference(**columns)
