"""The child process of `math_answers`: compares mathematical answers, within limits of CPU time and memory.

It writes "ready", then reads one JSON object {"expected", "text"} per line from standard input and writes one JSON
string per line: "same", "different", "nothing_expected" or "no_answer". It is a process of its own because an answer
such as 9^(9^(9^9)) may never be evaluated: the timer then ends the process, whatever it is computing.
"""

import json
import logging
import os
import resource
import signal
import sys
from functools import lru_cache
from typing import Any

from math_verify import parse, verify
from math_verify.parser import ExprExtractionConfig, LatexExtractionConfig

MAX_CPU_S = 2.0
"""For one comparison; an ordinary one takes milliseconds."""
MAX_BYTES = 2**31


@lru_cache(maxsize=1024)
def _parsed(text: str) -> Any:
    # A boxed answer comes first. No timeout of the library: it would count seconds during which others compute.
    formats = [LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig()]
    return parse(text, formats, parsing_timeout=None)


def compare(expected: str, text: str) -> str:
    """Compare the final answers of two texts."""
    if not (gold := _parsed(expected)):
        return "nothing_expected"
    if not (answer := _parsed(text)):
        return "no_answer"
    return "same" if verify(gold, answer, timeout_seconds=None) else "different"


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)  # SIGPROF ends the process
        try:
            outcome = compare(request["expected"], request["text"])
        except (MemoryError, RecursionError):
            outcome = "no_answer"
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(outcome), file=replies, flush=True)


if __name__ == "__main__":
    main()
