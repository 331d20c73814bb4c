"""The command line: parse, call, exit code. Each command imports its heavy dependencies itself."""

import os
import sys
import warnings
from collections.abc import Sequence

from selfreward import signals
from selfreward.commands.arguments import parsed
from selfreward.commands.closed_pipe import quiet_on_closed_pipe
from selfreward.errors import SelfRewardError


@quiet_on_closed_pipe
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code (docs/exit_codes.md)."""
    options = parsed(sys.argv[1:] if arguments is None else arguments)
    # Read when torch is imported: OpenMP threads that wait asleep. Threads that spin are no faster on quiet cores, and
    # far slower where other programs use the cores too (benchmarks/threads.txt).
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    with signals.raised():
        try:
            code = int(options.command(options))
            signals.check()  # a signal whose exception a library swallowed
            return code
        except BaseException as error:
            if (ending := _ending(error)) is None:
                raise
            code, message = ending
    print(f"selfreward: {message}", file=sys.stderr)
    return code


def _ending(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and the message of an error; None when it is a bug of ours."""
    if received := signals.received():  # whatever the error is, the signal caused it
        return signals.code_of(received), (
            f"stopped by {received.name}; all finished work is stored; the same command resumes"
        )
    if isinstance(error, SelfRewardError):
        return error.exit_code, str(error)
    if isinstance(error, MemoryError):
        return 4, (
            "out of memory on this machine; a smaller engine.max_num_seqs or training.micro_batch_tokens needs "
            "less; set it and run the same command again"
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
