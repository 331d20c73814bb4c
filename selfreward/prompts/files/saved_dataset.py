"""Folders that `save_to_disk` of the `datasets` library wrote: a data set, or several splits of one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selfreward.errors import RecipeError
from selfreward.prompts.files.arrow_rows import BATCH_ROWS, arrow_rows
from selfreward.prompts.files.row import Row

_ONE, _SPLITS = "state.json", "dataset_dict.json"


def is_saved_dataset(folder: Path) -> bool:
    return (folder / _ONE).is_file() or (folder / _SPLITS).is_file()


def saved_rows(folder: Path, name: str, *, split: str) -> Iterator[Row]:
    """Yield the rows of a split. Raises RecipeError."""
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    # Whatever the library raises on damaged files.
    except Exception as error:
        cause = " ".join(str(error).split())[:500] or type(error).__name__
        raise RecipeError(
            f"{name}: not readable as a folder of `save_to_disk` ({cause}); all its files are needed; save it again"
        ) from error
    if isinstance(found, dict):
        if split not in found:
            raise RecipeError(
                f"{name}: no split {split!r}; there are {', '.join(found)}; name one: `kind: dataset`, `split: ...`"
            )
        found = found[split]
    return dataset_rows(found, name)


def dataset_rows(rows: Any, name: str) -> Iterator[Row]:
    """Yield the rows of a `datasets.Dataset`, without decoding images or sounds."""
    return arrow_rows(rows.with_format("arrow").iter(batch_size=BATCH_ROWS), name)
