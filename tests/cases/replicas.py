"""Actors without a model, which end when they are asked to, for the tests of lost replicas."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from selfreward.engines.pool.replica import Loaded


class Doubling:
    """A replica whose work is to double numbers. A path among them ends the process, unless the path exists."""

    def place(self) -> str:
        return f"host, process {os.getpid()}"

    def load(self, checkpoint: Any, kept: Mapping[str, Any]) -> Loaded:
        self._checkpoint = checkpoint
        return Loaded(False, {"pid": os.getpid()})

    def double(self, numbers: Sequence[Any]) -> list[tuple[int, Any]]:
        for trap in (number for number in numbers if isinstance(number, Path)):
            if not trap.exists():
                if trap.parent.exists():
                    trap.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return [(2 * number, self._checkpoint) for number in numbers if not isinstance(number, Path)]

    def failing(self, numbers: Sequence[int]) -> list[int]:
        if 3 in numbers:
            raise ValueError("three is refused")
        return list(numbers)

    def asleep(self) -> int:
        return os.getpid()


def wait_until(condition: Any, *, seconds: float) -> bool:
    """Return whether a condition comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return bool(condition())


def descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def started_script(text: str, *arguments: str) -> subprocess.Popen[str]:
    """Start Python code in a process of its own, whose standard output is read."""
    return subprocess.Popen([sys.executable, "-c", text, *arguments], stdout=subprocess.PIPE, text=True)
