"""How far the training is: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

Report = Callable[[str, int, int], None]
"""Called with the phase (reference, update, measure), how much of it is done, and how much there is."""

SECONDS_BETWEEN_LINES = 30.0


def silent(phase: str, done: int, total: int) -> None:
    """A Report that says nothing."""


class Display:
    """A Report for people, on standard error."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._phase = ""
        self._bar: Any = None
        self._started = self._said = time.monotonic()

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase != self._phase:
            self._close()
            self._phase = phase
            self._started = self._said = time.monotonic()
        if self._on_terminal:
            self._draw(done, total)
        else:
            self._say(done, total)

    def _draw(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            unit = "step" if self._phase == "update" else "pair"
            self._bar = tqdm(total=total, desc=f"training: {self._phase}", unit=unit, leave=False)
        self._bar.update(done - self._bar.n)

    def _say(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._said >= SECONDS_BETWEEN_LINES:
            left = (now - self._started) / done * (total - done)
            print(f"training: {self._phase} {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)
            self._said = now

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
