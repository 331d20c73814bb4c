"""SIGKILL before every operation of a process that changes files: the hardest test of resuming, without luck.

Python reports such operations to audit hooks before it carries them out. A parent that has imported everything forks
each round, so a round costs milliseconds.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = {
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod",
    "shutil.rmtree", "shutil.move", "shutil.copyfile", "shutil.copytree",
}  # fmt: skip
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Round:
    """`killed_at` is the operation before which the process was killed, or None: it ended before that many."""

    killed_at: str | None
    exit_code: int


def run_killed(work: Callable[[], object], *, at: int, log: Path) -> Round:
    """Run `work` in a fork that is killed before its operation number `at`, counted from 0. `log` is a scratch file."""
    log.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        _kill_at(at, log)
        code = 1
        try:
            code = int(work() or 0)  # type: ignore[call-overload]
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return Round(log.read_text() if killed else None, os.waitstatus_to_exitcode(status))


def _kill_at(at: int, log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT)
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if not changes_files(event, arguments):
            return
        if seen == at:
            os.write(descriptor, f"{event} {arguments[0]}".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        seen += 1

    sys.addaudithook(hook)


def changes_files(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool(arguments[2] & _WRITE_FLAGS) and not str(arguments[0]).startswith(("/dev/", "/proc/"))
    return event in _CHANGES
