"""The files of a run, and the rule of resuming: make a file only when it does not exist.

runs/NAME/
  manifest.json  status.json  recipe.yaml  run.log  report.html  report.json  metrics.jsonl  logs/  slurm/
  iteration-01/responses/00000.parquet ...   while the stage runs: one file per finished shard
  iteration-01/responses.parquet             when it is complete: one row group per shard
  iteration-01/checkpoint/                   M_1
"""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from selfreward import signals
from selfreward.errors import NoRunError, StoreError
from selfreward.store import recovery
from selfreward.store.deadline import Deadline, noted_when_dropped
from selfreward.store.files import (
    explain_os_errors,
    flush,
    partial_name_of,
    sha256_of,
    weights_sha256,
    write_atomically,
    write_text_atomically,
)
from selfreward.store.lock import RunLock
from selfreward.store.manifest import Manifest
from selfreward.store.model_folder import changed_files, files_sha256
from selfreward.store.names import MANIFEST, folder_of, is_shard, iteration_of, merged_name, shard_name
from selfreward.store.ownership import path_in, refuse_existing_files
from selfreward.store.tables import columns_of, from_table, schema_of, to_table, write_table
from selfreward.tables import R, Table

T = TypeVar("T")
Meter = Callable[[], Mapping[str, float]]
Listener = Callable[[str, int, str, Mapping[str, Any]], None]
"""Called with ("started" | "shard" | "finished", iteration, stage, details), but not for stored results."""


def _is_new(folder: Path) -> bool:
    try:
        return not (folder / MANIFEST).exists()
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise NoRunError(
            f"{folder}: {error.strerror}; a run folder is a folder that can be read and written; correct the path"
        ) from error


def _no_run(folder: Path) -> NoRunError:
    what = "a file" if folder.is_file() else f"no {MANIFEST}"
    runs = [str(path.parent) for path in sorted(folder.glob(f"*/{MANIFEST}"))[:5]]
    advice = f"name one of the runs in it: {', '.join(runs)}" if runs else "check the path"
    return NoRunError(f"{folder}: {what}; a run folder is needed, which `selfreward run` makes at output_dir; {advice}")


class Store:
    """One run folder, locked by one process (`write=True`) or read by any number of processes.

    `meter` returns counters that only grow; their increase during a shard is recorded with the shard. `deadline` is
    when this process has to end.
    """

    def __init__(self, folder: Path, *, name: str = "", write: bool = True, earlier: bool = False) -> None:
        """`earlier` also opens run folders of earlier versions, to read tables that are the same in this one."""
        self.folder = folder
        self.meter: Meter = dict
        self.deadline = Deadline()
        self.listener: Listener = lambda *_: None
        self._verified: set[str] = set()
        self._recorded: Counter[str] = Counter()  # cost that this process has already recorded in the manifest
        is_new = _is_new(folder)
        if is_new and not write:
            raise _no_run(folder)
        if is_new:
            refuse_existing_files(folder)
        self._lock = RunLock(folder) if write else None
        self._manifest = Manifest(
            folder / MANIFEST, name=name or folder.name, earlier=earlier,
            before_write=self._lock.require_held if self._lock else lambda: None,
        )  # fmt: skip
        if is_new:
            self._manifest.save()  # before any other file, so that a folder with iterations always has one
        if write:
            recovery.finish_interrupted_writes(folder, self._manifest)
            recovery.remove_merged_shards(folder, self._manifest)
        recovery.forget_removed_iterations(folder, self._manifest, write=write)

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._lock:
            self._lock.release()

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what is uncertain about the folder itself."""
        return (self._lock.warning,) if self._lock and self._lock.warning else ()

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._manifest.content

    def record_facts(self, **facts: Any) -> None:
        """Record provenance for the report: versions, models, engine, prompts."""
        self._manifest.content["facts"].update(facts)
        self._manifest.save()

    def record_event(self, what: str, **details: Any) -> None:
        self._manifest.event(what, **details)

    # -- stages ---------------------------------------------------------------------------------------------------

    def make_shard(self, iteration: int, table: Table[R], shard: int, make: Callable[[], Iterable[R]]) -> None:
        """Make and store the records of a shard unless they are stored.

        Raises OutOfTimeError and LaunchError for a shard that would not end before the deadline.
        """
        if self._has_shard(iteration, table.name, shard):
            return
        self.deadline.check(self.manifest, iteration, table.name, shard)
        self.listener("started", iteration, table.name, {"shard": shard})
        name = shard_name(iteration, table.name, shard)
        with noted_when_dropped(self.record_event, iteration, table.name, shard):
            entry = self._make_and_record(name, lambda: to_table(table.record, make()), write_table)
        self.listener("shard", iteration, table.name, {"shard": shard, **entry})

    def stage(self, iteration: int, table: Table[R], num_shards: int, make: Callable[[int], Iterable[R]]) -> None:
        """Make a complete table, shard by shard, and merge it into one file."""
        if self.has(iteration, table):
            return
        for shard in range(num_shards):
            self.make_shard(iteration, table, shard, partial(make, shard))
        self.listener("finished", iteration, table.name, self._merge(iteration, table))

    def read(self, iteration: int, table: Table[R], shard: int | None = None, *, tokens: bool = True) -> Iterator[R]:
        """Yield the stored records of a table or of one shard. StoreError when there are none or they were changed.

        With `tokens=False` their token ids and log-probabilities are empty, which saves most of the time.
        """
        record: type = table.record
        columns = columns_of(record, tokens=tokens)
        merged = self._manifest.entry(merged_name(iteration, table.name))
        if merged is not None:
            yield from self._read_merged(iteration, table, shard, merged["shard_records"], columns)
            return
        shards = self._shards(iteration, table.name) if shard is None else [shard_name(iteration, table.name, shard)]
        for name in shards:
            rows = pq.read_table(self._verify(name), schema=schema_of(record), columns=columns)
            yield from from_table(record, rows)

    def read_rows(self, iteration: int, table: Table[Any]) -> pa.Table:
        """Return the stored rows of a table as they are on disk, also those of an unfinished stage. StoreError."""
        record: type = table.record
        schema, merged = schema_of(record), merged_name(iteration, table.name)
        if self._manifest.entry(merged) is not None:
            return pq.read_table(self._verify(merged), schema=schema)
        shards = self._manifest.names_under(f"{folder_of(iteration)}/{table.name}/")
        return pa.concat_tables(
            [schema.empty_table(), *(pq.read_table(self._verify(name), schema=schema) for name in shards)]
        )

    def has(self, iteration: int, table: Table[Any]) -> bool:
        """Return whether a table is complete."""
        return self._manifest.entry(merged_name(iteration, table.name)) is not None

    def has_begun(self, iteration: int) -> bool:
        """Return whether any file of an iteration is finished."""
        return any(name.startswith(f"{folder_of(iteration)}/") for name in self.manifest["files"])

    def num_shards(self, iteration: int, table: Table[Any]) -> int:
        """Return the number of shards of a complete table."""
        return len(self.manifest["files"][merged_name(iteration, table.name)]["shard_records"])

    def path(self, iteration: int, table: Table[Any]) -> Path:
        """Return the path of a complete table."""
        return self.folder / merged_name(iteration, table.name)

    def _merge(self, iteration: int, table: Table[Any]) -> dict[str, Any]:
        """Merge all shards of a finished table into one parquet file, one row group each, and sum their costs."""
        stage = table.name
        names = self._shards(iteration, stage)
        entries = [self._manifest.entry(name) or {} for name in names]
        usage: dict[str, float] = {}
        for entry in entries:
            for key, value in entry["usage"].items():
                usage[key] = usage.get(key, 0) + value
        merged = merged_name(iteration, stage)
        combined: dict[str, Any] = {
            "num_records": sum(e["num_records"] for e in entries),
            "shard_records": [e["num_records"] for e in entries],
            "seconds": sum(e["seconds"] for e in entries),
            "usage": usage,
            **({"group": table.group} if table.group else {}),
        }

        def record(temporary: Path) -> None:
            self._manifest.record(merged, combined | {"sha256": sha256_of(temporary)}, drop=names)

        write_atomically(
            path_in(self.folder, merged), lambda temporary: self._merge_into(temporary, names), record=record
        )
        self._verified.add(merged)
        shutil.rmtree(self.folder / Path(names[0]).parent, ignore_errors=True)
        return combined

    # -- values, folders, texts -----------------------------------------------------------------------------------

    def read_or_make_json(
        self, iteration: int, name: str, make: Callable[[], Any], *, remake_if: Callable[[Any], bool] = lambda _: False
    ) -> Any:
        """Return a stored JSON value (strict: no NaN); make it when it is missing or `remake_if(value)` is true."""
        if (value := self.read_json(iteration, name)) is not None and not remake_if(value):
            return value
        file_name = f"{folder_of(iteration)}/{name}.json"
        self.listener("started", iteration, name, {})
        self.deadline.has_worked = True  # a training, say, which resumes from its own saves and may take any time
        entry = self._make_and_record(
            file_name,
            lambda: json.dumps(make(), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            lambda text, path: path.write_text(text, encoding="utf-8"),
        )
        self.listener("finished", iteration, name, entry)
        return json.loads((self.folder / file_name).read_text(encoding="utf-8"))

    def read_json(self, iteration: int, name: str) -> Any | None:
        """Return a stored JSON value, or None."""
        file_name = f"{folder_of(iteration)}/{name}.json"
        if self._manifest.entry(file_name) is None:
            return None
        return json.loads(self._verify(file_name).read_text(encoding="utf-8"))

    def work_folder(self, iteration: int, name: str) -> Path:
        """Return a work folder that survives a kill, so that a stage can resume; `commit_checkpoint` removes it."""
        path = path_in(self.folder, f"{folder_of(iteration)}/.{name}/_").parent
        with explain_os_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        return path

    def commit_checkpoint(self, iteration: int, name: str, made: Path) -> tuple[Path, str]:
        """Move a complete model folder to its final path; return the path and the hash of its weights.

        For a checkpoint that was removed to save disk space, return its former path. Raises StoreError when a file of
        the folder, such as its tokenizer or chat template, was changed after it was committed.
        """
        file_name = f"{folder_of(iteration)}/{name}"
        path = path_in(self.folder, file_name)
        entry = self._manifest.entry(file_name)
        if entry is None:
            with explain_os_errors(path):
                if made.exists():
                    made.replace(path)
                    flush(path.parent)
                entry = {
                    "sha256": weights_sha256(path), "files": files_sha256(path), "seconds": 0.0, "usage": {}
                }  # fmt: skip
            self._manifest.record(file_name, entry)
            self._verified.add(file_name)
        elif not entry.get("removed") and file_name not in self._verified:
            self._expect(file_name, entry["sha256"], weights_sha256(path))
            now = files_sha256(path)
            for changed in changed_files(entry.get("files", now), now):
                self._expect(
                    f"{file_name}/{changed}", entry["files"].get(changed, "no file"), now.get(changed, "no file")
                )
        shutil.rmtree(made.parent, ignore_errors=True)
        return path, entry["sha256"]

    def folders(self, name: str) -> list[int]:
        """Return the iterations that have a folder of this name on disk, in order."""
        entries = ((iteration_of(n), e) for n, e in self.manifest["files"].items() if Path(n).name == name)
        return sorted(iteration for iteration, entry in entries if not entry.get("removed"))

    def remove_folder(self, iteration: int, name: str) -> None:
        """Remove a folder that is no longer needed; the manifest retains its hash."""
        file_name = f"{folder_of(iteration)}/{name}"
        entry = self._manifest.entry(file_name)
        if entry is not None and not entry.get("removed"):
            self._manifest.record(file_name, {**entry, "removed": True})
        shutil.rmtree(self.folder / file_name, ignore_errors=True)

    def write_text(self, relative_path: str, text: str) -> None:
        """Write a text that can be made again at any time, such as a report; it is not in the manifest."""
        write_text_atomically(path_in(self.folder, relative_path), text)

    def set_link(self, link: str, target: str) -> None:
        """Set a symbolic link in the run folder atomically."""
        temporary = partial_name_of(self.folder / link)
        with explain_os_errors(self.folder / link):
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(self.folder / link)

    # -- cost ---------------------------------------------------------------------------------------------

    def seconds_by_stage(self, iteration: int) -> dict[str, float]:
        return {stage: entry["seconds"] for stage, entry in self._costs(iteration)}

    def groups(self, iteration: int) -> dict[str, str]:
        """Map each stage with a group to the name under which its cost is summed."""
        return {stage: entry["group"] for stage, entry in self._costs(iteration) if "group" in entry}

    def usage_by_stage(self, iteration: int) -> dict[str, dict[str, float]]:
        return {stage: entry["usage"] for stage, entry in self._costs(iteration) if entry["usage"]}

    def elapsed_s(self) -> float:
        """Return the working time of the run in seconds, over all its processes."""
        return float(sum(entry["seconds"] for entry in self.manifest["files"].values()))

    def _costs(self, iteration: int) -> list[tuple[str, dict[str, Any]]]:
        prefix = f"{folder_of(iteration)}/"
        return [
            (name.removeprefix(prefix).split(".")[0], entry)
            for name, entry in self.manifest["files"].items()
            if name.startswith(prefix) and entry["seconds"] > 0 and not is_shard(name, iteration)
        ]

    # -- internals ---------------------------------------------------------------------------------------------------

    def _make_and_record(self, name: str, make: Callable[[], T], write: Callable[[T, Path], object]) -> dict[str, Any]:
        """Make, write and record a file. The cost of other stages run inside `make` is not attributed to this file."""
        before, recorded_before = self._counters(), self._recorded.copy()
        entry: dict[str, Any] = {}

        def record(temporary: Path) -> None:
            cost = self._counters()
            cost.subtract(before)
            cost.subtract(self._recorded - recorded_before)
            self._recorded.update(cost)
            seconds = cost.pop("seconds")
            entry["sha256"] = sha256_of(temporary)
            entry["seconds"] = round(seconds, 3)
            entry["usage"] = {key: round(value, 6) for key, value in cost.items() if value > 0}
            if name.endswith(".parquet"):
                entry["num_records"] = pq.read_metadata(temporary).num_rows
            self._manifest.record(name, entry)

        signals.check()
        path = path_in(self.folder, name)
        content = make()
        write_atomically(path, lambda temporary: write(content, temporary), record=record)
        self._verified.add(name)
        return entry

    def _counters(self) -> Counter[str]:
        return Counter({**self.meter(), "seconds": time.monotonic()})

    def _merge_into(self, path: Path, names: list[str]) -> None:
        schema = pq.read_schema(self.folder / names[0])
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for name in names:
                table = pq.read_table(self._verify(name))
                if table.num_rows:
                    writer.write_table(table, row_group_size=table.num_rows)

    def _read_merged(
        self, iteration: int, table: Table[R], shard: int | None, shard_records: list[int], columns: list[str]
    ) -> Iterator[R]:
        with pq.ParquetFile(self._verify(merged_name(iteration, table.name))) as file:
            for index, num_records in enumerate(shard_records):
                if num_records and shard in (None, index):
                    group = sum(1 for n in shard_records[:index] if n)  # empty shards have no row group
                    rows: pa.Table = file.read_row_group(group, columns=columns)
                    yield from from_table(table.record, rows)

    def _has_shard(self, iteration: int, stage: str, shard: int) -> bool:
        merged = self._manifest.entry(merged_name(iteration, stage))
        if merged is not None:
            return shard < len(merged["shard_records"])
        return self._manifest.entry(shard_name(iteration, stage, shard)) is not None

    def _shards(self, iteration: int, stage: str) -> list[str]:
        names = self._manifest.names_under(f"{folder_of(iteration)}/{stage}/")
        if not names:
            raise StoreError(
                f"{self.folder}: iteration {iteration} has no {stage}; the stage must be made before it is read; "
                "run the recipe again"
            )
        return names

    def _verify(self, name: str) -> Path:
        """Return the path of a finished file; its hash is verified once per process."""
        path = self.folder / name
        entry = self._manifest.entry(name)
        if name not in self._verified and entry is not None:
            self._expect(name, entry["sha256"], sha256_of(path) if path.is_file() else "no file")
        return path

    def _expect(self, name: str, recorded: str, found: str) -> None:
        if recorded != found:
            first = recovery.restart_point(self._manifest, iteration_of(name))
            raise StoreError(
                f"{self.folder / name}: found {found[:12]}, in the manifest sha256 {recorded[:12]}, so the file was "
                f"changed after it was written; restore it, or remove the folder {folder_of(first)} and all later "
                "ones and run the same command again to make them again"
            )
        self._verified.add(name)
