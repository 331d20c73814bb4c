"""Comparison of mathematical answers by the math-verify library, in a child process with limits (`math_child`).

The final answer of a text is its last boxed expression, else its last LaTeX formula or number. Two answers are the same
when they are mathematically equal: 1/2, 0.5 and \\frac{1}{2} are.
"""

import atexit
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Literal

from selfreward.errors import SelfRewardError

Comparison = Literal["same", "different", "nothing_expected", "no_answer"]
MAX_CHARS = 8000
"""Of a text, at its end, where the answer is."""
_CHILD = Path(__file__).with_name("math_child.py")
_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed")


def matches(expected: str, text: str) -> bool:
    """Whether the final answer of `text` equals `expected`, which is LaTeX with or without delimiters."""
    delimited = expected if _DELIMITED.search(expected) else rf"\boxed{{{expected}}}"
    return compare(delimited, text) == "same"


def has_answer(text: str) -> bool:
    """Whether a text has a final answer that can be evaluated within the limits."""
    return compare(r"\boxed{0}", text) != "no_answer"


def compare(expected: str, text: str) -> Comparison:
    """Compare the final answers of two texts; one that cannot be evaluated within the limits is none."""
    return _process(os.getpid()).compare(expected[-MAX_CHARS:], text[-MAX_CHARS:])


@cache
def _process(pid: int) -> "_MathProcess":
    """Return the child of this process: after a fork, two processes must not share one."""
    return _MathProcess()


class _MathProcess:
    """A child that is started at its first use, and again after an answer on which it ended."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        self._lock = Lock()
        atexit.register(self._end)

    def compare(self, expected: str, text: str) -> Comparison:
        with self._lock:
            reply = self._reply(json.dumps({"expected": expected, "text": text}))
        return json.loads(reply) if reply else "no_answer"

    def _reply(self, request: str) -> str:
        """Return the child's reply; empty when it ended, by its timer or for want of memory."""
        child = self._child or self._started()
        self._child = child
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(request + "\n")
            child.stdin.flush()
            reply = child.stdout.readline()
        except OSError:
            reply = ""
        if not reply:
            self._end()
        return reply

    def _started(self) -> "subprocess.Popen[str]":
        # -P: the script's folder is not a place to import from. In its own session: Ctrl-C is for its parent.
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
        if child.stdout is None or not child.stdout.readline():
            raise SelfRewardError(
                "checks of kind math: the process that compares answers ended before its first one; it needs the "
                "package math-verify and 2 GiB of memory; install it (pip install math-verify[antlr4_13_2]), then run "
                "the same command again"
            )
        return child

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None
