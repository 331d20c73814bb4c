"""A child process of an update on this machine, and what it prints. It never waits for the child."""

import os
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO

from selfreward.inherited import inherited_environment
from selfreward.updates.child import PARENT, STOPS, Rendezvous, command_of

ALLOCATOR = "PYTORCH_ALLOC_CONF"


@dataclass(frozen=True)
class Printed:
    """New lines of the outputs of a child; `code` when it has ended and there are no more, `lost` when its node has."""

    lines: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    code: int | None = None
    lost: str | None = None

    @property
    def has_ended(self) -> bool:
        return self.code is not None or self.lost is not None


class ChildProcess:
    """The child that computes an update, or that launches the ranks of this node."""

    name = "this machine"

    def __init__(self, job_file: Path, *, num_processes: int, rendezvous: Rendezvous | None = None) -> None:
        self._process = subprocess.Popen(
            command_of(job_file, rendezvous), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", env=environment(num_processes) | {PARENT: str(os.getpid()), STOPS: "1"},
            start_new_session=True,  # Ctrl-C reaches the driver alone, which ends its children
        )  # fmt: skip
        assert self._process.stdout is not None and self._process.stderr is not None  # both are pipes
        self._outputs = SimpleQueue[str](), SimpleQueue[str]()
        pipes = zip((self._process.stdout, self._process.stderr), self._outputs, strict=True)
        self._readers = [threading.Thread(target=_read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def read(self) -> Printed:
        is_over = not any(reader.is_alive() for reader in self._readers)
        code = self._process.poll() if is_over else None
        lines, errors = map(_taken, self._outputs)
        return Printed(lines, errors, code)

    def stop(self) -> None:
        """Ask for a save at the end of the step. The ranks have the same standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def kill(self) -> None:
        """End the child and, with it, its ranks."""
        self._process.kill()
        self._process.wait()
        self.stop()


def environment(num_processes: int) -> dict[str, str]:
    """Return the child's environment. What the user has set stays; what vLLM has set for itself does not, such as one
    channel between GPUs for `engine.batch_invariant`."""
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(num_processes))))
    num_threads = str(max(1, len(os.sched_getaffinity(0)) // num_processes))
    inherited = inherited_environment()
    # Micro-batches differ in length: without this setting, freed memory is left in pieces of other lengths.
    allocator = {} if "PYTORCH_CUDA_ALLOC_CONF" in inherited else {ALLOCATOR: "expandable_segments:True"}
    return {
        # torchrun would set 1 for several processes: passes on the CPU, as those before sharding, would take hours.
        "OMP_NUM_THREADS": num_threads,
        **allocator,
        **inherited,
        # As many visible GPUs as processes: libraries may use any visible GPU.
        "CUDA_VISIBLE_DEVICES": ",".join(gpus.split(",")[:num_processes]),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _read(stream: IO[str], lines: "SimpleQueue[str]") -> None:
    for line in stream:
        lines.put(line)
    stream.close()


def _taken(lines: "SimpleQueue[str]") -> tuple[str, ...]:
    found = []
    try:
        while True:
            found.append(lines.get_nowait())
    except Empty:
        return tuple(found)
