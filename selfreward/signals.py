"""Signals that end the program: Ctrl-C, and SIGTERM or SIGUSR1, which schedulers send before they end a job.

A signal handler raises an exception, and an exception can be lost: some libraries catch everything while they are
imported, and Python ignores exceptions in destructors. So a signal is also remembered. `check` raises it again, and
`received` says that an error that follows it, whatever its type, is the end that the signal asked for.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command resumes
INTERRUPTED = 130  # as in shells: 128 + SIGINT

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
_received: list[signal.Signals] = []
_held: list[bool] = []


class Preempted(BaseException):
    """The process received SIGTERM or SIGUSR1. Finished work is stored; the same command resumes the run."""


@contextmanager
def raised() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and Preempted on SIGTERM and SIGUSR1; the former handlers return at the end.

    Outside the main thread, and within another `raised`, it does nothing.
    """
    if signal.getsignal(signal.SIGTERM) is _receive:
        yield
        return
    _received.clear()
    try:
        before = {number: signal.signal(number, _receive) for number in _STOPPING}
    except ValueError:  # not the main thread
        before = {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def received() -> signal.Signals | None:
    """Return the signal that was received within the latest `raised`, if any."""
    return _received[-1] if _received else None


def waits() -> bool:
    """Return whether a signal was received within the `raised` that is not over yet."""
    return bool(_received) and signal.getsignal(signal.SIGTERM) is _receive


@contextmanager
def held() -> Iterator[None]:
    """Let the first signal inside wait: the work there asks whether one `waits`. A second one is raised at once."""
    _held.append(True)
    try:
        yield
    finally:
        _held.pop()


def code_of(number: int) -> int:
    """Return the exit code of a command that a signal stopped."""
    return INTERRUPTED if number == signal.SIGINT else PREEMPTED


def check() -> None:
    """Raise the received signal again, within `raised`. Called before long work: the first exception may be lost."""
    if waits():
        raise _exception(_received[-1])


def exit_at_once(code: int | None = None) -> None:
    """Let signals end the process without unwinding, where nothing can be lost: before a command and after it.

    `code` is the exit code of the finished command, or None before it.
    """
    for number in _STOPPING:
        signal.signal(number, lambda received, _: os._exit(code_of(received) if code is None else code))


def _receive(number: int, _: object) -> None:
    _received.append(signal.Signals(number))
    if _held and len(_received) == 1:
        return
    raise _exception(_received[-1])


def _exception(received: signal.Signals) -> BaseException:
    return KeyboardInterrupt() if received == signal.SIGINT else Preempted(f"received {received.name}")
