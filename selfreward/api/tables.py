"""Records of a run folder as `datasets.Dataset`, with the iteration of each row."""

from collections.abc import Sequence
from typing import Any

import datasets
import pyarrow as pa

from selfreward import tables
from selfreward.errors import RecipeError
from selfreward.evaluation import tables as evaluation
from selfreward.store import Store
from selfreward.store.names import iteration_of
from selfreward.store.tables import schema_of
from selfreward.tables import Table

OUTCOMES: Sequence[Table[Any]] = (
    evaluation.OUTCOMES, evaluation.SECOND_VALIDATION_OUTCOMES, evaluation.TEST_OUTCOMES, evaluation.GOLD_OUTCOMES,
)  # fmt: skip
_KNOWN: dict[str, Table[Any]] = {
    table.name: table
    for module in (tables, evaluation)
    for value in vars(module).values()
    for table in (value.values() if isinstance(value, dict) else [value])
    if isinstance(table, Table)
}


def table_named(name: str) -> Table[Any]:
    """Return the table of this name. Raises RecipeError."""
    if name not in _KNOWN:
        raise RecipeError(f"records: there is no table {name!r}; there are {', '.join(sorted(_KNOWN))}; use one")
    return _KNOWN[name]


def as_dataset(store: Store, found: Sequence[Table[Any]], iteration: int | None = None) -> datasets.Dataset:
    """Return the rows of these tables, which have one record type, of one iteration or of all. Raises StoreError."""
    there = sorted({iteration_of(name) for name in store.manifest["files"]})
    if iteration is not None and iteration not in there:
        raise RecipeError(
            f"{store.folder}: it has no iteration {iteration}; there are {', '.join(map(str, there)) or 'none yet'}; "
            "use one of these"
        )
    wanted = there if iteration is None else [iteration]
    parts = [_with_iteration(store.read_rows(t, table), t) for t in wanted for table in found]
    # An empty part sets the columns where there is no iteration yet.
    return datasets.Dataset(pa.concat_tables([*parts, *([] if parts else [_with_iteration(_empty(found[0]), 0)])]))


def _with_iteration(rows: pa.Table, iteration: int) -> pa.Table:
    return rows.add_column(0, "iteration", pa.array([iteration] * rows.num_rows, pa.int64()))


def _empty(table: Table[Any]) -> pa.Table:
    record: type = table.record
    return schema_of(record).empty_table()
