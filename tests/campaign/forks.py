"""Commands of selfreward in forks of a process that has imported everything: a round costs no imports.

A fork may send itself a signal before a chosen change of a file (as the audit hooks of Python report it), which reaches
every moment of every stage, or the parent sends one after some time, which reaches the computations between them.
"""

import gc
import importlib
import mmap
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cases.kill_points import changes_files

from selfreward import signals

_SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)
_ENDING = {signal.SIGINT, signal.SIGTERM}
_PAUSE_S = 0.05
LIMIT_S = 300.0


@dataclass(frozen=True)
class Interruption:
    """A signal, before change number `at_change` of a file, or after `after_s` seconds."""

    signal: signal.Signals
    at_change: int | None = None
    after_s: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended. `interrupted`: the signal was sent; `timed_out`: it was killed at the limit."""

    exit_code: int
    output: str
    num_changes: int
    seconds: float
    interrupted: bool = False
    timed_out: bool = False

    @property
    def has_traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.output


def preload(arguments: Sequence[str], log: Path) -> None:
    """Import what a command imports, as a first fork that ran it lists; nothing that starts threads is called."""
    listed = log.with_suffix(".modules")
    run(arguments, log=log, prepare=lambda: _list_modules(listed))
    with warnings.catch_warnings(action="ignore"):
        for name in listed.read_text().split():
            with suppress(ImportError, AttributeError):  # a module that its package makes in its own way
                importlib.import_module(name)
    gc.freeze()  # so that a collection in a fork does not copy and search all of this


def _list_modules(path: Path) -> None:
    """List the imported modules at the end of a fork."""
    _at_end.append(lambda: path.write_text("\n".join(sys.modules)))


_at_end: list[Callable[[], object]] = []


def drawn_interruption(chance: random.Random, *, num_changes: int, seconds: float) -> Interruption:
    """Draw a signal and its moment, for about twelve interruptions in a run of so many changes and seconds."""
    number = chance.choice(_SIGNALS)
    if chance.random() < 0.5:
        return Interruption(number, at_change=int(chance.expovariate(12 / num_changes)))
    return Interruption(number, after_s=chance.expovariate(12 / seconds))


def run(
    arguments: Sequence[str],
    *,
    log: Path,
    interruption: Interruption | None = None,
    prepare: Callable[[], object] = lambda: None,
    limit_s: float = LIMIT_S,
) -> Ended:
    """Run a command line in a fork, in a process group of its own. `prepare` is called in the fork."""
    counter = mmap.mmap(-1, 8)
    started = time.monotonic()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until the fork can be ended as a new process can
    pid = os.fork()
    if pid != 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    else:
        _be_the_command(arguments, log, counter, interruption, prepare)
    interrupted = timed_out = False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
        elapsed = time.monotonic() - started
        if done and os.WIFSTOPPED(status):
            interrupted = True
            time.sleep(_PAUSE_S)
            _send(pid, signal.SIGCONT)
        elif done:
            break
        if interruption and not interrupted and interruption.after_s is not None and elapsed >= interruption.after_s:
            interrupted = True
            _send(pid, interruption.signal)
        if elapsed > limit_s:
            timed_out = True
            _send(pid, signal.SIGKILL)
        time.sleep(0.003)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what a killed command may have left behind
    num_changes = int.from_bytes(counter[:8], "little")
    if interruption and interruption.at_change is not None:
        interrupted = num_changes > interruption.at_change
    output = log.read_text(encoding="utf-8", errors="replace")
    return Ended(os.waitstatus_to_exitcode(status), output, num_changes, elapsed, interrupted, timed_out)


def _send(pid: int, number: int) -> None:
    """Send a signal to a command; a kill also to its children, once it has a group of its own."""
    if number == signal.SIGKILL:
        with suppress(ProcessLookupError):
            os.killpg(pid, number)
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _be_the_command(
    arguments: Sequence[str],
    log: Path,
    counter: mmap.mmap,
    interruption: Interruption | None,
    prepare: Callable[[], object],
) -> None:
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        signals.exit_at_once()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        prepare()
        _count_changes(counter, interruption)
        from selfreward.cli import main

        code = main(list(arguments))
        for work in _at_end:
            work()
    except BaseException:  # noqa: BLE001 - shown as the interpreter would
        traceback.print_exc()
    finally:
        for stream_ in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream_.flush()
        os._exit(code)


def _count_changes(counter: mmap.mmap, interruption: Interruption | None) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if changes_files(event, arguments):
            seen += 1
            counter[:8] = seen.to_bytes(8, "little")
            if interruption and interruption.at_change == seen - 1:
                os.kill(os.getpid(), interruption.signal)

    sys.addaudithook(hook)
