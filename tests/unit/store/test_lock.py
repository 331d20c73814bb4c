"""One process per run folder, also where the file system has no locks, and never through a link."""

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from selfreward.errors import LockedError, StoreError
from selfreward.store import Store
from selfreward.store.lock import LEASE, LOCK, RunLock, is_held, start_time_of

# A file system without locks, as seen by a process: the system call fails.
WITHOUT_FLOCK = """
import errno, fcntl, os, sys
from pathlib import Path
def flock(*_): raise OSError(errno.{error}, os.strerror(errno.{error}))
fcntl.flock = flock
from selfreward.store.lock import RunLock, is_held
lock = RunLock(Path(sys.argv[1]), expire_s=0.5)
print(lock.warning, flush=True)
sys.stdin.read()
lock.release()
"""


def holder(folder: Path, error: str = "ENOSYS") -> "subprocess.Popen[str]":
    code = WITHOUT_FLOCK.format(error=error)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def refused(folder: Path) -> str:
    with holder(folder) as second:
        _, errors = second.communicate("")
    assert second.returncode == 1
    return errors


@pytest.mark.parametrize("error", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_without_flock_a_lease_marks_the_folder_with_a_warning(tmp_path: Path, error: str) -> None:
    with holder(tmp_path, error) as first:
        assert first.stdout is not None
        warning = first.stdout.readline()
        assert os.strerror(getattr(errno, error)) in warning and "start one process per run folder" in warning
        assert "LockedError" in refused(tmp_path)
        first.kill()
    with holder(tmp_path, error) as third:  # the owner is dead, which is certain on this machine
        third.communicate("")
    assert third.returncode == 0
    assert not (tmp_path / LEASE).exists()


def test_a_lease_of_another_machine_is_waited_for_until_it_is_not_renewed(tmp_path: Path) -> None:
    lease = {"pid": 1, "host": "another", "started": "1", "renewals": 4}
    (tmp_path / LEASE).write_text(json.dumps(lease))
    with holder(tmp_path) as process:
        process.communicate("")
    assert process.returncode == 0
    (tmp_path / LEASE).write_text(json.dumps(lease))
    with holder(tmp_path) as process:
        assert process.stdin is not None
        while process.poll() is None:  # as if the other machine renewed it again and again
            lease["renewals"] += 1
            (tmp_path / ".renewed").write_text(json.dumps(lease))
            (tmp_path / ".renewed").rename(tmp_path / LEASE)
        assert process.stderr is not None
        assert "LockedError" in process.stderr.read()


def test_of_processes_that_start_together_one_gets_the_lease(tmp_path: Path) -> None:
    """Also when they all find the lease of a dead process, or one that was never written to its end."""
    code = WITHOUT_FLOCK.format(error="ENOLCK").replace("\nlock = ", "\nsys.stdin.readline()\nlock = ")
    for left_over in (None, "", json.dumps({"pid": 2**22 + 1, "host": socket.gethostname(), "started": "1"})):
        if left_over is not None:
            (tmp_path / LEASE).write_text(left_over)
        command = [sys.executable, "-c", code, str(tmp_path)]
        processes = [
            subprocess.Popen(
                command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        warnings = [process.stdout.readline() for process in processes if process.stdout]  # one each, or the end
        assert sum("does not support locks" in warning for warning in warnings) == 1
        assert is_held_without_flock(tmp_path)
        for process in processes:
            process.communicate("")
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(LEASE)]


def is_held_without_flock(folder: Path) -> bool:
    return start_time_of(json.loads((folder / LEASE).read_text())["pid"]) is not None


def test_nothing_is_recorded_in_a_folder_that_was_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with Store(tmp_path / "run") as store:
        store.record_event("ours")
        before = (tmp_path / "run" / "manifest.json").read_bytes()
        taken = {"pid": 1, "host": "another", "started": "1", "renewals": 1}
        (tmp_path / "run" / LEASE).write_text(json.dumps(taken))
        with pytest.raises(LockedError, match=r'in use by .*"host": "another"'):
            store.record_event("too late")
        assert (tmp_path / "run" / "manifest.json").read_bytes() == before
    assert json.loads((tmp_path / "run" / LEASE).read_text()) == taken, "the lease of another is not removed"


def test_a_lock_that_is_a_link_or_no_file_is_refused_and_its_target_untouched(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("content")
    for name, make in (
        ("link", lambda path: path.symlink_to(precious)),
        ("pipe", os.mkfifo),
        ("folder", lambda path: path.mkdir()),
    ):
        folder = tmp_path / name
        folder.mkdir()
        make(folder / LOCK)
        with pytest.raises(StoreError, match=r"\.lock: .*"):
            Store(folder)
        assert not is_held(folder)
    assert precious.read_text() == "content"


def test_a_status_query_does_not_keep_a_run_from_starting(tmp_path: Path) -> None:
    """`is_held` takes a shared lock for an instant; a lock that is taken then waits for it."""
    RunLock(tmp_path).release()
    code = (
        "import fcntl, sys, time; file = open(sys.argv[1]); fcntl.flock(file, fcntl.LOCK_SH); "
        "print('held', flush=True); time.sleep(0.3)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / LOCK)], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        RunLock(tmp_path).release()


def test_a_second_process_gets_its_own_exit_code(tmp_path: Path) -> None:
    with Store(tmp_path / "run"), pytest.raises(LockedError) as refusal:
        Store(tmp_path / "run")
    assert refusal.value.exit_code == 5 and f'"pid": {os.getpid()}' in str(refusal.value)


def test_an_error_of_the_file_system_is_explained(tmp_path: Path) -> None:
    with holder(tmp_path, "EIO") as process:
        _, errors = process.communicate("")
    assert f"StoreError: {tmp_path / LOCK}: {os.strerror(errno.EIO)}; " in errors


def test_a_lease_that_was_taken_over_ends_the_process_that_lost_it(tmp_path: Path) -> None:
    """As after a stop of more than a minute: the other machine must not share the folder with this process."""
    code = "import sys; from selfreward.store import lock; lock._RENEW_S = 0.05\n" + WITHOUT_FLOCK.format(
        error="ENOSYS"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        taken = json.dumps({"pid": 1, "host": "another", "started": "1", "renewals": 1})
        (tmp_path / LEASE).write_text(taken)
        assert process.wait(60) == -15
    assert (tmp_path / LEASE).read_text() == taken
