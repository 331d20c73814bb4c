"""The end of a command that cannot print: quiet when the reader has gone (`selfreward status RUN | head -1`)."""

import errno
import os
import select
import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")
CLOSED_PIPE = 141  # 128 + SIGPIPE, the status that a shell shows for such a program


def quiet_on_closed_pipe(main: Callable[P, int]) -> Callable[P, int]:
    """Return `main` so that it returns 141 when standard output or error is a pipe that nobody reads any more.

    It returns 4 when the disk is full to which they are redirected. A broken pipe to anything else, such as a child
    process, is still an error.
    """

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> int:
        try:
            try:
                return main(*args, **kwargs)
            finally:
                sys.stdout.flush()  # here, and not when the interpreter ends
        except BrokenPipeError:
            closed = [descriptor for descriptor in (1, 2) if _is_closed(descriptor)]
            if not closed:
                raise
            _discard(closed)
            return CLOSED_PIPE
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            _discard([1])
            print(
                f"selfreward: {error.strerror}; free some disk space, then run the same command again", file=sys.stderr
            )
            return 4

    return run


def _discard(descriptors: list[int]) -> None:
    """Let what is still buffered for these files go nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def _is_closed(descriptor: int) -> bool:
    """Return whether the reading end of a pipe or socket is closed."""
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are reported without being asked for
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
