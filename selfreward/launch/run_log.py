"""run.log in the run folder: what the console shows, with the time, and a line for each optimizer step.

It has all attempts; `logs/local-NN.log` has the same lines of one. A batch job writes its own log there instead.

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
from selfreward.launch.attempts import new_local_log, newest_log
from selfreward.store.files import explain_os_errors

RUN_LOG: Final = "run.log"
LOGGER: Final = logging.getLogger("selfreward")


@contextmanager
def run_log(folder: Path) -> Iterator[logging.Logger]:
    """Append what is logged meanwhile to run.log and to a log of this attempt, in lines with UTC times.

    Raises StoreError.
    """
    attempt = new_local_log(folder)
    with _written_to(*[folder / RUN_LOG, *([attempt] if attempt else [])]) as logger:
        yield logger


@contextmanager
def _written_to(*paths: Path) -> Iterator[logging.Logger]:
    level, propagate = LOGGER.level, LOGGER.propagate
    handlers = [_handler(path) for path in paths]
    for handler in handlers:
        LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # the console shows these lines already, and a library may log to it
    try:
        yield LOGGER
    finally:
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate
        for handler in handlers:
            LOGGER.removeHandler(handler)
            with suppress(OSError):  # the disk may be full
                handler.close()


def append(folder: Path, text: str) -> None:
    """Append the lines of a text to the logs of the last attempt, each with the time; lose them where one cannot be
    written."""
    newest = newest_log(folder)
    local = [newest] if newest and newest.name.startswith("local-") else []
    with suppress(StoreError), _written_to(folder / RUN_LOG, *local) as logger:
        for line in filter(None, text.splitlines()):
            logger.info("%s", line)


def _handler(path: Path) -> logging.Handler:
    with explain_os_errors(path):
        handler = _Handler(path, encoding="utf-8", errors="backslashreplace")
    formatter = logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    return handler


class _Handler(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Lose the line: a full disk ends the run where its results are written, with a clear message."""
