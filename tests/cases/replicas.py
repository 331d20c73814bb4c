"""Actors without a model, which end when they are asked to, for the tests of lost replicas."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from selfreward.engines.pool.replica import Loaded
from selfreward.errors import EngineError


class Doubling:
    """A replica whose work is to double numbers. A path among them ends the process, unless the path exists."""

    def place(self) -> str:
        return f"host, process {os.getpid()}"

    def load(self, checkpoint: Any, kept: Mapping[str, Any]) -> Loaded:
        if checkpoint == "refused":
            raise EngineError("this checkpoint cannot be loaded")
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


def is_alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@dataclass(frozen=True)
class Nodes:
    """A cluster of two nodes: its address, and the processes of the nodes; a driver uses the first one."""

    address: str
    raylets: tuple[int, int]


@contextmanager
def two_nodes(folder: Path) -> Iterator[Nodes]:
    command = [sys.executable, str(Path(__file__).parent / "two_nodes.py")]
    log, pipe = (folder / "nodes.log").open("w"), subprocess.PIPE
    with log, subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True) as process:
        assert process.stdout is not None
        line = next(line for line in iter(process.stdout.readline, "") if line.startswith("{"))
        yield Nodes(**json.loads(line))
        process.communicate("")
