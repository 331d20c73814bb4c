"""Training in child processes: starts them, shows their progress, and ends all of them together."""

import collections
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from selfreward import errors
from selfreward.errors import SelfRewardError, TrainingError
from selfreward.signals import Preempted
from selfreward.store.files import write_text_atomically
from selfreward.updates.child import RANK_PREFIX, request_of
from selfreward.updates.child_process import ChildProcess, Printed
from selfreward.updates.job import TrainingJob
from selfreward.updates.progress import Report, silent
from selfreward.updates.settings import Settings

TAIL_LINES = 50
POLL_S = 0.05
SAVE_S = 90.0
"""How long a save may take after a signal; schedulers end a job a minute or two later."""
OTHERS_S = 5.0
"""After a failure, how long other nodes may take to report theirs, which may be the cause."""


class Node(Protocol):
    """The child of one node."""

    @property
    def name(self) -> str: ...

    def read(self) -> Printed: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Watched:
    """A node, the last lines of its log, and how it ended."""

    node: Node
    tail: "collections.deque[str]" = field(default_factory=lambda: collections.deque(maxlen=TAIL_LINES))
    end: Printed | None = None
    failed: tuple[int, int] | None = None

    @property
    def is_sound(self) -> bool:
        return self.end is None or self.end.code == 0

    @property
    def rank(self) -> int:
        """A larger one is a likelier cause: connections to a rank that was killed or to a lost node break as well."""
        was_killed = (self.failed[1] if self.failed else (self.end and self.end.code) or 0) < 0
        return 2 if self.end is not None and self.end.lost else int(was_killed)


def train_in_children(job: TrainingJob, settings: Settings, *, report: Report = silent) -> dict[str, Any]:
    """Run `update.train` in child processes: the same result, and all their memory is released."""
    job_file, request = job.work_folder.absolute() / "child.json", request_of(job, settings)
    write_text_atomically(job_file, request)
    launch = settings.launch
    if launch.nodes == 1:
        follow([ChildProcess(job_file, num_processes=launch.processes_per_node)], report)
    else:
        from selfreward.updates.ray_nodes import started

        with started(job_file, request, launch) as nodes:
            follow(nodes, report)
    metrics: dict[str, Any] = json.loads((job.work_folder / "training.json").read_text(encoding="utf-8"))
    return metrics


def follow(nodes: Sequence[Node], report: Report) -> None:
    """Return when all have ended well. When one fails, end all and raise the reason; at a signal, let them save."""
    watched = [Watched(node) for node in nodes]
    try:
        _watch(watched, report)
    except (KeyboardInterrupt, Preempted):
        _let_save(watched, report)
        raise
    finally:
        for node in nodes:
            node.kill()


def _watch(watched: Sequence[Watched], report: Report) -> None:
    failure: SelfRewardError | None = None
    until: float | None = None
    while any(one.end is None for one in watched):
        for one in watched:
            failure = _read(one, report) or failure
        if until is None and not all(one.is_sound for one in watched):
            until = time.monotonic() + OTHERS_S
        if until is not None and time.monotonic() > until:
            break
        time.sleep(POLL_S)
    if failure is not None:
        raise failure
    if broken := [one for one in watched if not one.is_sound]:
        raise TrainingError(_reason(max(broken, key=lambda one: one.rank), len(watched)))


def _let_save(watched: Sequence[Watched], report: Report) -> None:
    """Wait until the children have saved, which they do at the end of a step. A second signal ends the wait."""
    print("training: stopping after this step, with a save; again to stop without", file=sys.stderr, flush=True)
    for one in watched:
        one.node.stop()
    until = time.monotonic() + SAVE_S
    while any(one.end is None for one in watched) and time.monotonic() < until:
        for one in watched:
            _read(one, report)
        time.sleep(POLL_S)


def _read(one: Watched, report: Report) -> SelfRewardError | None:
    """Report progress; note a failure, and return the error that a rank has raised, if any."""
    if one.end is not None:
        return None
    printed = one.node.read()
    for line in printed.errors:
        one.tail.append(line.rstrip("\n"))
        sys.stderr.write(line)
    failure = None
    for line in printed.lines:
        message = _message(line)
        if "report" in message:
            report(*message["report"])
        elif "error" in message:
            name, text = message["error"]
            failure = getattr(errors, name)(text)
        elif "failed" in message:
            one.failed = tuple(message["failed"])
        else:
            sys.stderr.write(line)  # printed by a library
    if printed.has_ended:
        one.end = printed
    return failure


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _reason(one: Watched, num_nodes: int) -> str:
    assert one.end is not None
    where = f" on {one.node.name}" if num_nodes > 1 else ""
    if one.end.lost is not None:
        return (
            f"training: the node {one.node.name} was lost ({one.end.lost}); all {num_nodes} nodes are needed; see to "
            "it; the same command continues from the last save"
        )
    who, code, tail = f"the process{where}", one.end.code or 0, list(one.tail)
    if one.failed is not None:
        rank, code = one.failed
        prefix = RANK_PREFIX.format(rank)
        who = f"rank {rank}{where}"
        tail = [line for line in tail if line.startswith(prefix)] or tail
    how = f"ended with exit code {code}"
    advice = "read the end of its log below; the same command continues from the last save"
    if code < 0:
        how = f"was killed by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            advice = (
                "often the machine ran out of memory: lower training.micro_batch_tokens; the same command continues "
                "from the last save"
            )
    return "\n".join([f"training: {who} {how}; it must end with exit code 0; {advice}", *tail])
