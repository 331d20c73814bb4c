"""Every file of a run folder deleted, truncated, flipped or replaced in turn, and the run continued.

Right is the same result as before, or a refusal (exit code 4, or 2 where the message names a recipe or a path) that
names the file. Wrong is a traceback, another code, or another result.
"""

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

from campaign import forks
from campaign.forks import Interruption
from campaign.results import Results, shown
from campaign.runs import VARIANTS, contents

PART = "files"


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 1
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": _flip,
    "list": lambda path: path.write_text("[]"),
    "number": lambda path: path.write_text("3"),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "deep": lambda path: path.write_text("[" * 30_000),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "link": lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
}


def campaign(results: Results, work: Path, *, num_cases: int, case: str = "") -> None:
    """Change files of a finished run and of runs that were killed in the middle. `case` is BASE:FILE:CHANGE."""
    work.mkdir(parents=True, exist_ok=True)
    variant, log, folder = VARIANTS[0], work / "log", work / "run"
    whole = forks.run(variant.command(folder), log=log)
    expected = contents(folder)
    bases = {"finished": work / "finished"}
    folder.rename(bases["finished"])
    for name, share in (("early", 0.25), ("middle", 0.6)):
        killed = Interruption(signal.SIGKILL, at_change=round(share * whole.num_changes))
        forks.run(variant.command(folder), log=log, interruption=killed)
        bases[name] = work / name
        folder.rename(bases[name])
    cases = [
        f"{base}:{path.relative_to(root)}:{change}"
        for base, root in bases.items()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
        for change in CHANGES
    ]
    drawn = [case] if case else random.Random(f"{results.seed}/{PART}").sample(cases, min(num_cases, len(cases)))
    for name in shown(drawn, PART):
        base, file, change = name.split(":")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bases[base], folder, symlinks=True)
        CHANGES[change](folder / file)
        for command in (["status", str(folder)], ["report", str(folder)], variant.command(folder)):
            _check(results, name, command, folder, log, expected, whole.exit_code)
        results.counts["changed_files"] += 1


def _check(
    results: Results, case: str, command: list[str], folder: Path, log: Path, expected: dict[str, str], finished: int
) -> None:
    ended = forks.run(command, log=log)
    results.counts["tracebacks"] += ended.has_traceback
    if ended.has_traceback or ended.exit_code not in (finished, 2, 4) or ended.timed_out:
        results.fail(PART, f"{command[0]}: exit code {ended.exit_code}: {ended.output[-800:]}", case=case)
    elif command[0] == "run" and ended.exit_code == finished:
        file = case.split(":")[1]
        found = contents(folder)
        different = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n) and n != file)
        results.counts["files_compared"] += len(expected)
        results.counts["differences"] += len(different)
        if different:
            results.fail(PART, f"continued to other results: {', '.join(different[:5])}", case=case)
    elif command[0] == "run" and not any(part in ended.output for part in Path(case.split(":")[1]).parts):
        results.fail(PART, f"the message does not name the file: {ended.output[-400:]}", case=case)
