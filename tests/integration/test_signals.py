"""Ctrl-C and SIGTERM end every command with 130 and 75, also in the middle of an import that swallows exceptions."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "recipes/tiny.yaml")

# The command, which receives a signal when the import of a module begins, or at its exit.
PROGRAM = """
import atexit, os, sys

module, number, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]

class Finder:
    sent = False

    def find_spec(self, name, path=None, target=None):
        if name == module and not self.sent:
            self.sent = True
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
if module == "exit":
    atexit.register(os.kill, os.getpid(), number)
sys.argv = ["selfreward", *arguments]
from selfreward.__main__ import main
sys.exit(main())
"""


def ended(module: str, number: signal.Signals, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", PROGRAM, module, str(int(number)), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize(
    ("module", "number", "code"),
    [
        ("argparse", signal.SIGINT, 130),  # before the command line is read
        ("selfreward.recipe_file", signal.SIGTERM, 75),
        ("torch", signal.SIGINT, 130),
        ("tokenizers", signal.SIGUSR1, 75),
        ("safetensors", signal.SIGTERM, 75),
    ],
)
def test_a_signal_during_an_import_ends_the_command(module: str, number: signal.Signals, code: int) -> None:
    done = ended(module, number, "validate", TINY)
    assert done.returncode == code, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    if module != "argparse":
        assert f"selfreward: stopped by {number.name}; all finished work is stored" in done.stderr


def test_a_signal_that_a_library_swallows_still_ends_the_run(tmp_path: Path) -> None:
    """langdetect catches everything while it imports simplejson; the run notices the signal before its next shard."""
    folder = tmp_path / "run"
    done = ended("simplejson", signal.SIGTERM, "run", TINY, "--set", f"output_dir={folder}")
    assert done.returncode == 75 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert "stopped by SIGTERM" in done.stderr
    assert not (folder / "iteration-01/decision.json").exists(), "the run was not stopped"


def test_a_signal_at_exit_does_not_change_what_the_command_found() -> None:
    assert ended("exit", signal.SIGTERM, "validate", TINY).returncode == 0
    missing = ended("exit", signal.SIGINT, "validate", "nowhere.yaml")
    assert missing.returncode == 2 and "Traceback" not in missing.stderr
