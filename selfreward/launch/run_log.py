"""run.log in the run folder: what the console shows, with the time, and a line for each optimizer step.

Packages write to it through `logging`, to the logger `selfreward`. Whatever is written there is a line of the console
or a message of ours: no environment, no request and no header, and so no key of an endpoint.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from selfreward.errors import StoreError
from selfreward.store.files import explain_os_errors

RUN_LOG: Final = "run.log"
LOGGER: Final = logging.getLogger("selfreward")


@contextmanager
def run_log(folder: Path) -> Iterator[logging.Logger]:
    """Append what is logged meanwhile to run.log, in lines with UTC times. Raises StoreError."""
    level, propagate = LOGGER.level, LOGGER.propagate
    with explain_os_errors(folder / RUN_LOG):
        handler = _Handler(folder / RUN_LOG, encoding="utf-8", errors="backslashreplace")
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # the console shows these lines already, and a library may log to it
    try:
        yield LOGGER
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
        with suppress(OSError):  # the disk may be full
            handler.close()


def append(folder: Path, text: str) -> None:
    """Append the lines of a text to run.log, each with the time; lose them where it cannot be written."""
    with suppress(StoreError), run_log(folder) as logger:
        for line in filter(None, text.splitlines()):
            logger.info("%s", line)


class _Handler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: a full disk ends the run where its results are written, with a clear message."""
