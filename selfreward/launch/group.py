"""A group of runs that belong together: the seeds of a recipe, or the values of an ablation. `runs.json` lists them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from selfreward.errors import NoRunError, StoreError
from selfreward.store.files import read_text, write_text_atomically

RUNS: Final = "runs.json"


class Member(NamedTuple):
    """A run of a group: its folder, and its values of the keys in which the runs differ."""

    folder: Path
    values: Mapping[str, Any]


def keys_of(members: Sequence[Member]) -> list[str]:
    """Return the keys in which the runs differ, the seed last."""
    keys = dict.fromkeys(key for member in members for key in member.values)
    return sorted(keys, key=lambda key: key == "seed")


def write_group(folder: Path, members: Sequence[Member]) -> list[Member]:
    """Write the runs of a group, after those that are listed there already; return all of them. Raises StoreError."""
    before = read_group(folder) if (folder / RUNS).exists() else []
    new = {member.folder for member in members}
    members = [*(member for member in before if member.folder not in new), *members]
    entries = [{"folder": str(member.folder), "values": dict(member.values)} for member in members]
    folder.mkdir(parents=True, exist_ok=True)
    write_text_atomically(folder / RUNS, json.dumps(entries, indent=1) + "\n")
    return members


def read_group(folder: Path) -> list[Member]:
    """Return the runs of a group. Raises NoRunError or StoreError."""
    path = folder / RUNS
    if not path.is_file():
        raise NoRunError(
            f"{folder}: no {RUNS}; the folder of a group of runs is needed, which `selfreward submit --seeds` or "
            "`selfreward ablate` has made; check the path"
        )
    try:
        return [Member(Path(entry["folder"]), dict(entry["values"])) for entry in json.loads(read_text(path))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path}: not as it was written ({error}); a list of runs is needed; remove it, and give the command that "
            "made it again"
        ) from error
