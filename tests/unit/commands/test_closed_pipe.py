"""Output into a pipe that nobody reads: no traceback, and the status that shells expect."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selfreward.commands.closed_pipe import CLOSED_PIPE, quiet_on_closed_pipe

TABLE = "iteration,prompt_id,anchor_outcome\n" + "".join(f"1,p{i},1\n" for i in range(50))


def run_with_closed(stream: str, arguments: list[str]) -> tuple[int, str]:
    """Run the command line with this stream as a pipe without a reader; return its status and the other stream."""
    reading, writing = os.pipe()
    os.close(reading)
    other = "stderr" if stream == "stdout" else "stdout"
    streams = {stream: writing, other: subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-m", "selfreward.cli", *arguments], text=True, **streams) as process:
        os.close(writing)
        out, err = process.communicate(timeout=120)
    return process.returncode, (err if stream == "stdout" else out) or ""


@pytest.mark.parametrize("arguments", [["schema"], ["monitor", "--csv", "TABLE"]])
def test_output_that_nobody_reads_ends_quietly(tmp_path: Path, arguments: list[str]) -> None:
    table = tmp_path / "table.csv"
    table.write_text(TABLE)
    named = [str(table) if argument == "TABLE" else argument for argument in arguments]
    assert run_with_closed("stdout", named) == (CLOSED_PIPE, "")


def test_an_error_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    assert run_with_closed("stderr", ["status", str(tmp_path)]) == (CLOSED_PIPE, "")


def test_a_broken_pipe_to_something_else_is_an_error() -> None:
    @quiet_on_closed_pipe
    def command() -> int:
        raise BrokenPipeError("a child process has gone")

    with pytest.raises(BrokenPipeError, match="a child process"):
        command()


def test_a_full_disk_behind_standard_output_is_explained() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "selfreward", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 4 and done.stderr.startswith("selfreward: No space left"), done.stderr
