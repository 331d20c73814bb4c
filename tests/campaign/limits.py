"""A time limit for one case of a fuzzer, in the process itself."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TooSlow(BaseException):
    """The case took longer than its limit."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TooSlow after `seconds` of processor time, so that a busy machine fails nothing."""

    def stop(*_: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
