"""The cache of replies of version 0.1, an SQLite file: its replies were paid for, so they are taken over."""

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selfreward.errors import StoreError

_VERSION = 1


def entries(file: Path) -> list[dict[str, Any]]:
    """Return the lines of `endpoint_cache` with the replies and costs of `file`, which stays unchanged.

    Raises StoreError. A copy is read, without locks: some disks do not support those of SQLite.
    """
    try:
        with TemporaryDirectory(prefix="selfreward-replies-") as folder:
            copy = Path(folder, file.name)
            for suffix in ("", "-wal"):  # the newest replies may be in the log
                source = file.with_name(file.name + suffix)
                if source.is_file():
                    shutil.copyfile(source, copy.with_name(copy.name + suffix))
            with closing(sqlite3.connect(f"{copy.as_uri()}?vfs=unix-none", uri=True)) as connection:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # the log is then read without shared memory
                return list(_entries(connection))
    except (sqlite3.Error, ValueError, TypeError, AttributeError, OSError) as error:
        raise StoreError(
            f"{file}: {error}; it must be a cache of replies that this program wrote; move the file away (its replies "
            "are then requested and paid for again, and the cost counts from 0), then run the same command again"
        ) from error


def _entries(connection: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    if (version := connection.execute("PRAGMA user_version").fetchone()[0]) != _VERSION:
        raise ValueError(f"it has version {version}, and version {_VERSION} can be read")
    for key, text in connection.execute("SELECT key, reply FROM replies ORDER BY key"):
        fields = json.loads(text)
        if "unsent" in fields:  # renamed since
            fields["skipped"] = fields.pop("unsent")
        yield {"replies": {key: fields}}
    yield {"spent": dict(connection.execute("SELECT account, cost FROM spent").fetchall())}
    for sent, account, worst in connection.execute("SELECT id, account, worst FROM sent"):
        yield {"sent": f"{_VERSION}-{sent}", "account": account, "worst": worst}
