"""Training progress: a bar on a terminal, a plain line every 30 s elsewhere."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

Report = Callable[[str, int, int], None]
"""Called with the phase (reference, update, measure), the amount done and the total."""

SECONDS_BETWEEN_LINES = 30.0


def silent(phase: str, done: int, total: int) -> None:
    """A Report that prints nothing."""


class Display:
    """A Report for people, printed to standard error."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._phase = ""
        self._bar: Any = None
        self._started = self._last_line = time.monotonic()

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
            self._started = self._last_line = time.monotonic()
        if self._on_terminal:
            self._draw(done, total)
        else:
            self._print_line(done, total)

    def _draw(self, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            unit = "step" if self._phase == "update" else "pair"
            self._bar = tqdm(total=total, desc=f"training: {self._phase}", unit=unit, leave=False)
        self._bar.update(done - self._bar.n)

    def _print_line(self, done: int, total: int) -> None:
        now = time.monotonic()
        if 0 < done < total and now - self._last_line >= SECONDS_BETWEEN_LINES:
            left = (now - self._started) / done * (total - done)
            print(f"training: {self._phase} {done}/{total}, about {left:.0f} s left", file=sys.stderr, flush=True)
            self._last_line = now

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
