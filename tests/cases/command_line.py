"""The command line in a process of its own, as users call it, without the seconds that imports take.

A server imports the libraries once, and forks for each command. It computes nothing before, so no thread of a library
is lost in a fork.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ROOT / "recipes" / "tiny.yaml"


def selfreward(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = list(map(str, arguments))
    with tempfile.TemporaryDirectory() as folder:
        out, err = (Path(folder) / name for name in ("out", "err"))
        code = _ask(
            _server(), {"arguments": command, "out": str(out), "err": str(err), "environment": dict(os.environ)}
        )
        return subprocess.CompletedProcess(command, code, out.read_text("utf-8"), err.read_text("utf-8"))


def run(folder: Path, *overrides: str, recipe: Path = TINY) -> subprocess.CompletedProcess[str]:
    sets = [argument for item in (f"output_dir={folder}", *overrides) for argument in ("--set", item)]
    return selfreward("run", recipe, *sets)


def _ask(server: "subprocess.Popen[str]", request: dict[str, object]) -> int:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return int(server.stdout.readline())


@cache
def _server() -> "subprocess.Popen[str]":
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("command_server.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    atexit.register(server.kill)
    return server
