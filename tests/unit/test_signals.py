"""Signals that would change the exit code of a finished command while the interpreter ends."""

import signal
import subprocess
import sys

import pytest

LATE_SIGNAL = """
import os, sys
class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=int(sys.argv.pop())):
        kill(process, number)  # the interpreter deletes globals when its handlers are gone
last = Last()
from selfreward.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_at_exit_does_not_change_the_code_of_a_finished_command(number: signal.Signals) -> None:
    command = [sys.executable, "-c", LATE_SIGNAL, "schema", str(int(number))]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
