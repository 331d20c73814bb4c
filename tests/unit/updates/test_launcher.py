"""The launcher of an update: what it starts, and what it makes of what its children print; without any child."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfreward import signals
from selfreward.errors import StoreError, TrainingError
from selfreward.recipe import LaunchSection
from selfreward.updates import launcher
from selfreward.updates.child import Rendezvous, command_of, torchrun_arguments
from selfreward.updates.child_process import Printed
from selfreward.updates.launcher import follow
from selfreward.updates.progress import silent
from selfreward.updates.ray_nodes import variables_of

JOB = Path("/shared/work/child.json")


class Scripted:
    """A node that prints the given lines, and then nothing; `stopped` is printed when it is asked to stop."""

    def __init__(self, name: str, *printed: Printed, stopped: Printed | None = None) -> None:
        self.name, self._printed, self._stopped = name, list(printed), stopped
        self.killed = 0

    def read(self) -> Printed:
        return self._printed.pop(0) if self._printed else Printed()

    def stop(self) -> None:
        if self._stopped is not None:
            self._printed.append(self._stopped)

    def kill(self) -> None:
        self.killed += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "POLL_S", 0.001)
    monkeypatch.setattr(launcher, "OTHERS_S", 0.02)


def line(**message: object) -> str:
    return json.dumps(message) + "\n"


def failed(rank: int, code: int) -> Printed:
    errors = (f"[rank {rank}] why\n", "[rank 7] other\n", "torchrun ends\n")
    return Printed((line(failed=[rank, code]),), errors, code=1)


def test_ranks_of_one_node_and_of_several() -> None:
    one = torchrun_arguments(LaunchSection(processes_per_node=2), JOB, None)
    assert one == [
        "--standalone", "--nproc-per-node=2", "--tee=2", "--log-dir=/shared/work/logs",
        "--module", "selfreward.updates.child", str(JOB),
    ]  # fmt: skip
    meeting = Rendezvous(endpoint="10.0.0.1:29500", id="iteration-01", address="10.0.0.2", is_host=False)
    several = torchrun_arguments(LaunchSection(nodes=4, processes_per_node=8), JOB, meeting)
    assert several[:7] == [
        "--nnodes=4", "--rdzv-backend=c10d", "--rdzv-endpoint=10.0.0.1:29500", "--rdzv-id=iteration-01",
        "--rdzv-conf=is_host=false", "--local-addr=10.0.0.2", "--nproc-per-node=8",
    ]  # fmt: skip
    assert Rendezvous(**json.loads(command_of(JOB, meeting)[-1])) == meeting


def test_a_node_takes_over_what_says_how_to_connect_and_no_secret() -> None:
    found = variables_of({"NCCL_SOCKET_IFNAME": "ib0", "HF_HOME": "/shared/hf", "HF_TOKEN": "secret", "HOME": "/root"})
    assert found == {
        "NCCL_SOCKET_IFNAME": "ib0", "HF_HOME": "/shared/hf", "HF_HUB_OFFLINE": None, "SELFREWARD_CACHE": None,
        "XDG_CACHE_HOME": None, "OMP_NUM_THREADS": None,
    }  # fmt: skip


def test_progress_comes_from_whichever_node_reports(capsys: pytest.CaptureFixture[str]) -> None:
    reports: list[object] = []
    second = Printed(("printed by a library\n", line(report=["update", 1, 2, {}])), ("a warning\n",))
    nodes = [Scripted("a", Printed(code=0)), Scripted("b", second, Printed(code=0))]
    follow(nodes, lambda *progress: reports.append(progress))
    assert reports == [("update", 1, 2, {})]
    assert sorted(capsys.readouterr().err.splitlines()) == ["a warning", "printed by a library"]


def test_the_reason_is_the_killed_rank_and_not_a_broken_connection_to_it() -> None:
    nodes = [Scripted("a", failed(0, 1)), Scripted("b", Printed(), failed(3, -9)), Scripted("c")]
    with pytest.raises(TrainingError, match=r"rank 3 on b was killed by SIGKILL; .* ran out of memory") as caught:
        follow(nodes, silent)
    assert str(caught.value).splitlines()[1:] == ["[rank 3] why"]
    assert all(node.killed for node in nodes), "c would wait for ever"


def test_a_lost_node_is_the_reason() -> None:
    nodes = [Scripted("a", failed(0, -6)), Scripted("b", Printed(), Printed(lost="ActorDiedError"))]
    with pytest.raises(TrainingError, match=r"the node b was lost \(ActorDiedError\); all 2 nodes are needed"):
        follow(nodes, silent)


def test_an_error_that_a_rank_raised_is_raised_again() -> None:
    raised = Printed((line(error=["StoreError", "x: no space"]), line(failed=[0, 4])), code=1)
    with pytest.raises(StoreError, match="x: no space"):
        follow([Scripted("a", failed(1, -9)), Scripted("b", raised)], silent)


def test_one_process_is_called_the_process() -> None:
    with pytest.raises(TrainingError, match=r"^training: the process ended with exit code 3; .*\nlast words$"):
        follow([Scripted("this machine", Printed((), ("last words\n",), code=3))], silent)


@pytest.fixture
def asked() -> Iterator[None]:
    """A report that sends SIGTERM, within handlers that raise."""
    with signals.raised():
        yield


def send(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_waits_for_the_saves_of_all_nodes(asked: None) -> None:
    begins = Printed((line(report=["update", 1, 2, {}]),))
    nodes = [Scripted("a", begins, stopped=Printed(code=75)), Scripted("b", stopped=Printed(code=0))]
    with pytest.raises(signals.Preempted):
        follow(nodes, send)
    assert all(node.read() == Printed() for node in nodes), "all were waited for"


def test_a_save_that_takes_too_long_is_not_waited_for(asked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "SAVE_S", 0.05)
    node = Scripted("a", Printed((line(report=["update", 1, 2, {}]),)))
    with pytest.raises(signals.Preempted):
        follow([node], send)
    assert node.killed


def test_a_second_signal_ends_the_children_at_once(asked: None) -> None:
    reports = Printed((line(report=["update", 1, 2, {}]),))
    node, started = Scripted("a", reports, stopped=reports), time.monotonic()
    with pytest.raises(signals.Preempted):
        follow([node], send)
    assert node.killed and time.monotonic() - started < launcher.SAVE_S / 2
