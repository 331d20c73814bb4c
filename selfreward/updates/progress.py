"""Training progress: a bar on a terminal, lines elsewhere, and a line for each optimizer step in the run's log."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

SECONDS_BETWEEN_LINES = 30.0
_LOG = logging.getLogger("selfreward.training")
_IS_SHOWN = ContextVar("is_shown", default=True)


Report = Callable[[str, int, int, Mapping[str, float]], None]
"""Called with the phase (reference, update, measure), the amount done, the total, and the `loss`, `reward_margin` and
`learning_rate` of the step that was just taken, or nothing in the other phases."""


def silent(phase: str, done: int, total: int, measured: Mapping[str, float]) -> None:
    """A Report that prints nothing."""


@contextmanager
def hidden() -> Iterator[None]:
    """Show nothing on standard error inside this block; the log gets its lines."""
    token = _IS_SHOWN.set(False)
    try:
        yield
    finally:
        _IS_SHOWN.reset(token)


class Display:
    """A Report for people: on standard error, and each step in the log `selfreward.training`."""

    def __init__(self) -> None:
        self._on_terminal = sys.stderr.isatty()
        self._phase = ""
        self._bar: Any = None
        self._started = self._last_report = self._last_line = time.monotonic()
        self._done_before = 0

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def __call__(self, phase: str, done: int, total: int, measured: Mapping[str, float]) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._close()
            # A pass begins when the one before it ends; a resumed update begins at a later step.
            self._phase, self._started, self._last_line = phase, self._last_report, now
            self._done_before = done - 1 if measured else 0
        self._last_report = now
        line = self._line(done, total, measured)
        if measured:
            _LOG.info(line)
        if not _IS_SHOWN.get():
            return
        if self._on_terminal:
            self._draw(done, total, measured)
        else:
            self._print(line, is_due=bool(measured) and done in (1, total), is_last=done == total)

    def _line(self, done: int, total: int, measured: Mapping[str, float]) -> str:
        """Return a line such as `training: update 3/40  loss 0.6931  margin +0.012  rate 4.7e-07  35 s left`."""
        seconds = self._last_report - self._started
        left = seconds / max(1, done - self._done_before) * (total - done)
        parts = [f"training: {self._phase} {done}/{total}"]
        if measured:
            parts += [
                f"loss {measured['loss']:.4f}",
                f"margin {measured['reward_margin']:+.3f}",
                f"rate {measured['learning_rate']:.1e}",
            ]
        return "  ".join([*parts, f"about {left:.0f} s left"])

    def _draw(self, done: int, total: int, measured: Mapping[str, float]) -> None:
        from tqdm import tqdm

        if self._bar is None:
            unit = "step" if self._phase == "update" else "pair"
            self._bar = tqdm(total=total, desc=f"training: {self._phase}", unit=unit, leave=False)
        if measured:
            self._bar.set_postfix(loss=f"{measured['loss']:.3f}", margin=f"{measured['reward_margin']:+.2f}")
        self._bar.update(done - self._bar.n)

    def _print(self, line: str, *, is_due: bool, is_last: bool) -> None:
        """Print a line that is due, and any other one after some time, but none at the end of a pass."""
        if is_due or (not is_last and self._last_report - self._last_line >= SECONDS_BETWEEN_LINES):
            print(line, file=sys.stderr, flush=True)
            self._last_line = self._last_report

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
