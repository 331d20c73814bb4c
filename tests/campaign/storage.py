"""A disk that is full, again and again: exit code 4 each time, and after more space the same result."""

import os
import subprocess
from pathlib import Path

from campaign import forks
from campaign.results import Results
from campaign.runs import VARIANTS, contents

PART = "storage"
_START_KIB, _MAX_ROUNDS = 24, 60


def campaign(results: Results, work: Path, *, case: str = "") -> None:
    """Continue a run on a tmpfs that grows whenever it is full. Needs the right to mount."""
    work.mkdir(parents=True, exist_ok=True)
    variant, log, disk = VARIANTS[0], work / "log", work / "disk"
    disk.mkdir(exist_ok=True)
    folder = disk / "run"
    forks.run(variant.command(folder), log=log)
    expected = contents(folder)
    if os.geteuid() != 0 or not _mount(disk, _START_KIB):
        results.skipped[PART] = "a tmpfs cannot be mounted here"
        return
    try:
        _continue_while_it_grows(results, disk, log, expected)
    finally:
        subprocess.run(["umount", disk], check=False)


def _continue_while_it_grows(results: Results, disk: Path, log: Path, expected: dict[str, str]) -> None:
    variant, folder, size = VARIANTS[0], disk / "run", float(_START_KIB)
    for _ in range(_MAX_ROUNDS):
        ended = forks.run(variant.command(folder), log=log)
        results.counts["tracebacks"] += ended.has_traceback
        if ended.exit_code == 0:
            break
        results.counts["full_disks"] += 1
        if ended.exit_code != 4 or ended.has_traceback or "free some disk space" not in ended.output:
            found = f"{size:.0f} KiB: exit code {ended.exit_code}: {ended.output[-800:]}"
            results.fail(PART, found, case="tmpfs")
        size *= 2 if results.short else 1.2
        _mount(disk, round(size), again=True)
    found_files = contents(folder)
    different = sorted(n for n in expected.keys() | found_files.keys() if expected.get(n) != found_files.get(n))
    results.counts["files_compared"] += len(expected)
    results.counts["differences"] += len(different)
    if different:
        results.fail(PART, f"not as in the untouched run: {', '.join(different[:5])}", case="tmpfs")


def _mount(disk: Path, kib: int, *, again: bool = False) -> bool:
    options = f"{'remount,' if again else ''}size={kib}k"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
    return done.returncode == 0
