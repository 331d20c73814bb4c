"""The lock that allows one process per run folder.

`flock` where the file system supports it: the kernel releases it when the process dies, however it dies. Elsewhere
(Lustre without the mount option flock, some NFS servers) a lease: a file that names its owner, who renews it.
"""

import errno
import fcntl
import json
import os
import signal
import socket
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from selfreward.errors import LockedError, StoreError
from selfreward.store.files import explain_os_errors, write_text_atomically

LOCK, LEASE = ".lock", ".lease"
_RETRY_S = 1.0  # `is_held` takes the lock for an instant
_EXPIRE_S = 60.0  # of a lease; it is renewed four times as often
_UNSUPPORTED = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


class RunLock:
    """A lock held from construction to `release`. Raises LockedError when another process holds it."""

    def __init__(self, folder: Path, *, expire_s: float = _EXPIRE_S) -> None:
        """`expire_s` is the time without renewal after which the lease of another machine has expired."""
        path = folder / LOCK
        with explain_os_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.fdopen(_open(path, os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8", errors="replace")
        self.warning = ""
        self._lease: _Lease | None = None
        try:
            if not _locked(self._file.fileno(), fcntl.LOCK_EX, wait_s=_RETRY_S):
                raise _in_use(folder, self._file.read(1000))
            with explain_os_errors(path):
                self._file.truncate(0)
                self._file.write(json.dumps(_me()))
                self._file.flush()
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self._file.close()
                with explain_os_errors(path):
                    raise
            self._lease = _Lease(folder, expire_s=expire_s)
            self.warning = (
                f"{folder}: this file system does not support locks ({error.strerror}); the file {LEASE} marks the "
                f"folder as in use instead; a process that cannot renew it for {expire_s:.0f} s may lose the folder to "
                "another one, and ends; start one process per run folder"
            )

    def require_held(self) -> None:
        """Raise LockedError when another process has taken the folder over, which only a lease allows."""
        if self._lease:
            self._lease.require_ours()

    def release(self) -> None:
        if self._lease:
            self._lease.end()
        self._file.close()


def is_held(folder: Path) -> bool:
    """Return whether a live process works on the run."""
    try:
        descriptor = _open(folder / LOCK, os.O_RDONLY)
    except OSError:  # no lock, or no file of ours
        return False
    try:
        return not _locked(descriptor, fcntl.LOCK_SH, wait_s=0.0)
    except OSError:
        return _is_alive(_read_lease(folder / LEASE))
    finally:
        os.close(descriptor)


def _open(path: Path, flags: int) -> int:
    """Open a regular file, without following a link, which may lead to somebody else's file."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return descriptor


def _locked(descriptor: int, kind: int, *, wait_s: float) -> bool:
    """Try to lock for `wait_s` seconds. Raises OSError where the file system has no locks."""
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
        time.sleep(0.05)


def _in_use(folder: Path, owner: str) -> LockedError:
    return LockedError(
        f"{folder}: in use by {owner.strip() or 'another process'}; only one process may work on a run; wait for it or "
        "stop it, or set another output_dir"
    )


class _Lease:
    """A file that names its owner, renewed by a thread. An owner that died is recognised by its process id on its own
    machine, and elsewhere by a lease that does not change for `expire_s` seconds; clocks are never compared."""

    def __init__(self, folder: Path, *, expire_s: float) -> None:
        self._folder, self._path = folder, folder / LEASE
        self._ended, self._renewals, self._renew_s = threading.Event(), 0, expire_s / 4
        with explain_os_errors(self._path):
            while not self._created():
                self._remove_expired(expire_s)
        self._thread = threading.Thread(target=self._keep_renewing, daemon=True)
        self._thread.start()

    def _created(self) -> bool:
        """Create the file, which of several processes one does; return whether this one did."""
        own = self._own_path()
        own.write_text(self._content(), encoding="utf-8")
        try:
            os.link(own, self._path)  # complete from its first instant
        except FileExistsError:
            return False
        except OSError:  # no hard links here
            return self._created_in_place()
        finally:
            own.unlink()
        return True

    def _created_in_place(self) -> bool:
        try:
            with self._path.open("x", encoding="utf-8") as file:
                file.write(self._content())
        except FileExistsError:
            return False
        return True

    def _own_path(self) -> Path:
        return self._path.with_name(f"{LEASE}-{socket.gethostname()}-{os.getpid()}")

    def _remove_expired(self, expire_s: float) -> None:
        """Remove the lease of an owner that has died. Raises LockedError when it lives."""
        found = _read_lease(self._path)
        if found is None or found.get("host") != socket.gethostname():
            self._wait_for_expiry(found, _RETRY_S if found is None else expire_s)
        elif _is_alive(found):
            raise _in_use(self._folder, json.dumps(found))
        # Another process may remove the same one and create its own in between: by renaming we see what we remove.
        aside = self._own_path()
        try:
            self._path.rename(aside)
        except FileNotFoundError:
            return
        if (removed := _read_lease(aside)) != found:
            aside.rename(self._path)
            raise _in_use(self._folder, json.dumps(removed))
        aside.unlink()

    def _wait_for_expiry(self, found: dict[str, Any] | None, expire_s: float) -> None:
        """Wait while a lease stays as it is. `found` None: it is being written, or was never written to its end."""
        end = time.monotonic() + expire_s
        while time.monotonic() < end:
            if not self._path.exists():  # given up by its owner
                return
            if (now := _read_lease(self._path)) is not None and now != found:
                raise _in_use(self._folder, json.dumps(now))
            time.sleep(min(1.0, expire_s / 10))

    def _content(self) -> str:
        self._renewals += 1
        return json.dumps({**_me(), "renewals": self._renewals})

    def _renew(self) -> None:
        write_text_atomically(self._path, self._content())

    def require_ours(self) -> None:
        if not self._is_ours():
            raise _in_use(self._folder, json.dumps(_read_lease(self._path)))

    def _keep_renewing(self) -> None:
        while not self._ended.wait(self._renew_s):
            if not self._is_ours():  # taken over while this process was stopped: two writers would mix their files
                os.kill(os.getpid(), signal.SIGTERM)
                return
            with suppress(StoreError):  # a full disk: the next one may succeed
                self._renew()

    def _is_ours(self) -> bool:
        found = _read_lease(self._path)
        return found is None or {key: found.get(key) for key in _me()} == _me()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._is_ours():
            self._path.unlink(missing_ok=True)


def _read_lease(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _is_alive(owner: dict[str, Any] | None) -> bool:
    """Return whether the owner of a lease lives: certain on this machine; on another one, it has not given up."""
    if not owner or not isinstance(owner.get("pid"), int):
        return False
    if owner.get("host") != socket.gethostname():
        return True
    return owner.get("started") == start_time_of(owner["pid"]) is not None


def _me() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname(), "started": start_time_of(os.getpid())}


def start_time_of(pid: int) -> str | None:
    """Return the start of a process in clock ticks since the boot, so that a reused process id is another process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return None
