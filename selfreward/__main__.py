"""`selfreward` and `python -m selfreward`."""

import atexit
import os
import sys

from selfreward import signals


def main() -> int:
    """Run the command line. Signals are handled from here on, also while modules are imported and at exit."""
    codes: list[int] = []
    atexit.register(_end, codes)  # the first registered function is the last one called
    signals.exit_at_once()
    from selfreward.cli import main as command_line

    codes.append(command_line())
    signals.exit_at_once(codes[0])
    return codes[0]


def _end(codes: list[int]) -> None:
    """End the process with the code of a finished command, without the end of the interpreter.

    That removes our handlers first, so that a late signal would have the system's effect, and another exit code.
    """
    if codes:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(codes[0])


if __name__ == "__main__":
    sys.exit(main())
