"""`selfreward ablate` without Slurm: its runs one after the other, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from selfreward import signals
from selfreward.commands.group import Task, Tasks
from selfreward.errors import SelfRewardError
from selfreward.launch.finished import finished_run
from selfreward.launch.group import write_group
from selfreward.launch.local import check

_STOPPED = (signals.PREEMPTED, 130)


def checked(tasks: Sequence[Task]) -> list[str]:
    """Check each recipe as a run would, one for all seeds; return the warnings. Raises RecipeError."""
    warnings: list[str] = []
    seen: list[dict[str, object]] = []
    for task in tasks:
        values = {key: value for key, value in task.member.values.items() if key != "seed"}
        if values not in seen:
            seen.append(values)
            warnings += check(task.recipe)[1]
    return list(dict.fromkeys(warnings))


def run_all(path: Path, group: Tasks) -> int:
    """Run what has not finished; return 0, or the exit code of the first run that could not end.

    A run that fails does not keep the others from running; a signal ends them all.
    """
    write_group(group.folder, [task.member for task in group.tasks])
    failed = 0
    for number, task in enumerate(group.tasks, start=1):
        where = f"{number} of {len(group.tasks)}, {task.member.folder.name}"
        if _is_finished(task):
            print(f"── {where}: already finished", file=sys.stderr)
            continue
        print(f"── {where}", file=sys.stderr)
        code = _run(path, task)
        if code in _STOPPED:
            return code
        failed = failed or (0 if _is_finished(task) else code or 4)
    return failed


def _is_finished(task: Task) -> bool:
    try:
        return finished_run(task.recipe) is not None
    except SelfRewardError:  # a damaged folder: the run itself says so
        return False


def _run(path: Path, task: Task) -> int:
    settings = [word for override in task.overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "selfreward", "run", str(path), *settings]
    # Standard output is the table of all.
    process = subprocess.Popen(command, stdout=sys.stderr.fileno(), env={**os.environ, "PYTHONSAFEPATH": "1"})
    try:
        return process.wait()
    except BaseException:
        process.terminate()  # it stores what it has finished
        process.wait()
        raise
