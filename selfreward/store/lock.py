"""The lock that allows one process per run folder."""

import fcntl
import json
import os
import socket
from pathlib import Path
from typing import IO

from selfreward.errors import StoreError
from selfreward.store.files import explain_os_errors


class RunLock:
    """A lock held from construction to `release`; the kernel releases it when the process dies, however it dies."""

    def __init__(self, folder: Path) -> None:
        path = folder / ".lock"
        with explain_os_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[str] = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise StoreError(
                f"{folder}: in use by {owner}; only one process may work on a run; wait for it or stop it, "
                "or set another output_dir"
            ) from error
        with explain_os_errors(path):
            self._file.truncate(0)
            self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            self._file.flush()

    def release(self) -> None:
        self._file.close()


def is_held(folder: Path) -> bool:
    """Return whether a live process works on the run."""
    path = folder / ".lock"
    if not path.exists():
        return False
    with path.open("r", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
