"""Recovery of a run folder after a kill, or after a part of it was removed."""

import contextlib
from pathlib import Path
from typing import Any

from selfreward.errors import StoreError
from selfreward.store.files import explain_os_errors, final_name_of, sha256_of
from selfreward.store.manifest import Manifest
from selfreward.store.names import folder_of, iteration_of


def finish_interrupted_writes(folder: Path, manifest: Manifest) -> None:
    """Rename recorded temporary files, left by a kill between record and rename; delete those without a record.

    Only files with a name that this program gives, in folders in which it writes them, are touched.
    """
    for written_in in (folder, *folder.glob("iteration-[0-9]*"), *folder.glob("iteration-[0-9]*/[!.]*")):
        if written_in.is_dir() and not written_in.is_symlink():
            for path in [path for path in written_in.iterdir() if path.is_symlink() or path.is_file()]:
                if (final := final_name_of(path)) is not None:
                    _finish(path, final, manifest.entry(str(final.relative_to(folder))))


def _finish(partial: Path, final: Path, entry: dict[str, Any] | None) -> None:
    with explain_os_errors(final):
        if entry is not None and not partial.is_symlink() and entry["sha256"] == sha256_of(partial):
            partial.replace(final)
        else:
            partial.unlink()


def remove_merged_shards(folder: Path, manifest: Manifest) -> None:
    """Remove the shards of complete tables, left by a kill between the merge and their removal."""
    for name in manifest.names():
        shards = (folder / name).with_suffix("")
        is_merged = name.endswith(".parquet") and (folder / name).is_file()
        if is_merged and shards.is_dir() and not shards.is_symlink():
            for shard in shards.glob("[0-9]*.parquet"):
                if manifest.entry(str(shard.relative_to(folder))) is None:
                    with explain_os_errors(shard):
                        shard.unlink()
            with contextlib.suppress(OSError):  # not empty: a foreign file
                shards.rmdir()


def forget_removed_iterations(folder: Path, manifest: Manifest, *, write: bool) -> None:
    """Drop the records of removed iterations, so that they are made again, from a policy on disk."""
    recorded = {iteration_of(name) for name in manifest.names()}
    removed = {iteration for iteration in recorded if not (folder / folder_of(iteration)).is_dir()}
    if not removed:
        return
    first = restart_point(manifest, min(removed))
    if first < min(removed) or any(iteration > min(removed) for iteration in recorded - removed):
        raise StoreError(
            f"{folder}: {folder_of(min(removed))} is missing; it can only be made again together with all later "
            f"iterations, from an earlier policy on disk; remove {folder_of(first)} and every later folder, or restore "
            "the missing folder"
        )
    manifest.forget([name for name in manifest.names() if iteration_of(name) in removed])
    if write:
        manifest.save()


def restart_point(manifest: Manifest, iteration: int) -> int:
    """Return the latest iteration up to this one that can be made again: its policy is on disk (M_0 always is)."""
    for first in range(iteration, 0, -1):
        entries = (manifest.entry(f"{folder_of(i)}/checkpoint") for i in range(first - 1, 0, -1))
        policy = next((entry for entry in entries if entry is not None), None)
        if policy is None or not policy.get("removed"):
            return first
    return iteration
