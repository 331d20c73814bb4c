"""What a run folder owns, so that nothing else is written over, through a link, or by another command."""

import errno
import os
from pathlib import Path

from selfreward.errors import RecipeError
from selfreward.store.files import explain_os_errors
from selfreward.store.names import MANIFEST

_WRITTEN = (
    MANIFEST, "status.json", "recipe.yaml", "report.html", "report.json", "metrics.jsonl", "run.log", "best", "logs",
    "slurm",
)  # fmt: skip


def refuse_existing_files(folder: Path) -> None:
    """Refuse a new run in a folder with files that the run would overwrite. Raises RecipeError."""
    found = [name for name in _WRITTEN if os.path.lexists(folder / name)]
    found += sorted(path.name for path in folder.glob("iteration-*"))
    if found:
        raise RecipeError(
            f"{folder}: no {MANIFEST}, so not a run folder, but it contains {', '.join(found[:5])}, which a new run "
            "would overwrite; choose an empty or new folder as output_dir, or restore the manifest of the run"
        )


def path_in(folder: Path, relative: str | Path) -> Path:
    """Return the path of a file to write in a run folder. StoreError when a link leads its folder elsewhere."""
    path = folder / relative
    for parent in list(path.relative_to(folder).parents)[:-1]:
        if (folder / parent).is_symlink():
            with explain_os_errors(folder / parent):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder / parent))
    return path


def run_folder_of(path: Path) -> Path | None:
    """Return the run folder to which a file belongs, or None when the file is not one that a run writes."""
    named = Path(os.path.abspath(path))  # noqa: PTH100 - links are not followed: `best` leads to another folder
    for name in (Path(os.path.realpath(path)), named):
        for folder in name.parents:
            if (folder / MANIFEST).is_file():
                first = name.relative_to(folder).parts[0]
                if first in _WRITTEN or first.startswith(("iteration-", ".lock", ".lease")) or first == "endpoints":
                    return folder
    return None
