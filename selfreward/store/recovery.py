"""What a run folder needs after a kill, or after somebody removed a part of it."""

from pathlib import Path

from selfreward.errors import StoreError
from selfreward.store.files import explained, final_name_of, sha256_of
from selfreward.store.manifest import Manifest
from selfreward.store.names import folder_of, iteration_of


def finish_interrupted_writes(folder: Path, manifest: Manifest) -> None:
    """A kill may have come between a file's record and its name; what was not recorded was not complete."""
    for partial in folder.rglob(".*.partial"):
        if partial.is_dir():  # a trainer's, which resumes inside it
            continue
        path = final_name_of(partial)
        entry = manifest.entry(str(path.relative_to(folder)))
        with explained(path):
            if entry is not None and entry["sha256"] == sha256_of(partial):
                partial.replace(path)
            else:
                partial.unlink()


def forget_removed_iterations(folder: Path, manifest: Manifest, *, write: bool) -> None:
    """Whoever removes an iteration's folder wants it made anew, with all later ones, from a policy on disk."""
    recorded = {iteration_of(name) for name in manifest.names()}
    gone = {iteration for iteration in recorded if not (folder / folder_of(iteration)).is_dir()}
    if not gone:
        return
    first = restart_point(manifest, min(gone))
    if first < min(gone) or any(iteration > min(gone) for iteration in recorded - gone):
        raise StoreError(
            f"{folder}: {folder_of(min(gone))} is not there; it can only be made anew from an earlier policy "
            f"on disk and with all later iterations; remove {folder_of(first)} and every later folder, or restore "
            "the missing one"
        )
    if write:
        for name in manifest.names():
            if iteration_of(name) in gone:
                manifest.record(name, None)


def restart_point(manifest: Manifest, iteration: int) -> int:
    """The latest iteration, up to this one, that can be made anew: its policy is still on disk (M_0 always is)."""
    for first in range(iteration, 0, -1):
        entries = (manifest.entry(f"{folder_of(i)}/checkpoint") for i in range(first - 1, 0, -1))
        policy = next((entry for entry in entries if entry is not None), None)
        if policy is None or not policy.get("removed"):
            return first
    return iteration
