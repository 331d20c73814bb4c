"""Rows of the `datasets` library: a hub name, a folder of `save_to_disk`, or a source for `load_dataset`."""

from collections.abc import Iterator
from pathlib import Path

from selfreward.errors import RecipeError, SelfRewardError
from selfreward.prompts.files import Row, data_files, dataset_rows, is_saved_dataset, saved_rows
from selfreward.prompts.json_nesting import require_shallow_json
from selfreward.recipe.prompts import existing_path, format_of

_BUILDERS = {".jsonl": "JSON", ".ndjson": "JSON", ".json": "JSON", ".csv": "CSV", ".tsv": "CSV", ".parquet": "Parquet"}


def open_dataset(
    name: str, *, config: str | None = None, split: str = "train", revision: str | None = None
) -> Iterator[Row]:
    """Return the rows of a split, with ids row-N (from 1).

    Raises RecipeError when it cannot be loaded with these arguments, SelfRewardError when it cannot be reached.
    """
    where = f"dataset {name!r}"
    if folder := existing_path(name):
        if is_saved_dataset(folder):
            return saved_rows(folder, where, split=split)
        _require_one_format(folder, where)
        require_shallow_json(folder, where=where)
    import datasets

    requested = f"split {split!r}, config {config!r}, revision {revision!r}"
    try:
        # Remote code is never run: the library no longer supports it, and no flag enables it.
        rows = datasets.load_dataset(name, config, split=split, revision=revision)
    except ConnectionError as error:
        raise SelfRewardError(
            f"{where}: cannot be reached ({error}); a hub name needs a network or a filled cache; "
            "run the same command again later, or give a local folder"
        ) from error
    # Whatever the library raises on any files: a script, an empty file (StopIteration), a broken archive.
    except Exception as error:
        cause = " ".join(str(error).split())[:500] or type(error).__name__
        raise RecipeError(
            f"{where}: cannot be loaded with {requested} ({cause}); `name`, `config`, `split` and `revision` are "
            "arguments of `datasets.load_dataset`; correct the one that the message names"
        ) from error
    return dataset_rows(rows, where)


def _require_one_format(folder: Path, where: str) -> None:
    """Raise RecipeError for a folder of several formats, of which the library would read one and ignore the others."""
    found = sorted({_BUILDERS[kind] for file in data_files(folder) if (kind := format_of(file.name)) in _BUILDERS})
    if len(found) > 1:
        raise RecipeError(
            f"{where}: the folder has files of {' and '.join(found)}; the `datasets` library reads one format of a "
            f"folder; use `kind: file` with `path: {folder}`, which reads all"
        )
