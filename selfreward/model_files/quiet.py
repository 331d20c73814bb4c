"""Progress bars of transformers, shown only where they are useful."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers(*, on_a_terminal_too: bool) -> Iterator[None]:
    """Disable the progress bars of transformers in this context; by default they stay on a terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    if on_a_terminal_too or not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
