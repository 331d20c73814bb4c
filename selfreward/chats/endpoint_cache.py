"""Paid replies and their cost in one SQLite file: received replies survive any kill."""

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfreward.errors import StoreError
from selfreward.requests import Reply
from selfreward.store.files import explain_os_errors

_VERSION = 1
_TABLES = """
CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE spent (account TEXT PRIMARY KEY, cost REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE sent (id INTEGER PRIMARY KEY, account TEXT NOT NULL, worst REAL NOT NULL);
PRAGMA user_version = 1;
"""
# All versions of SQLite allow 999 parameters per query.
_KEYS_PER_QUERY = 500
_FULL, _READ_ONLY = ("disk is full", "disk I/O error"), ("readonly", "unable to open")


class ReplyCache:
    """A cache of replies, opened at its first use; threads may share it.

    A row of `sent` is a request that may be charged, at its maximum cost. It is removed when the reply arrives (its
    cost is then in `spent`) or when the server refuses it. A request whose answer was lost, by a time-out or a kill of
    this process, remains: the budget counts it as charged.
    """

    def __init__(self, file: Path, *, account: str) -> None:
        self._file = file
        self._account = account
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Return the cached replies among `keys`."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Reply] = {}
        with self._transaction() as connection:
            for start in range(0, len(wanted), _KEYS_PER_QUERY):
                some = wanted[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", some)
                found |= {key: _read_reply(text) for key, text in rows}
        return found

    def store(self, replies: Mapping[str, Reply], *, sent: int | None = None, cost: float = 0.0) -> None:
        """Store replies, the end of the request `sent` and its cost in one transaction."""
        rows = [(key, json.dumps(asdict(reply))) for key, reply in replies.items()]
        with self._transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?)", rows)
            if sent is not None:
                connection.execute("DELETE FROM sent WHERE id = ?", (sent,))
                connection.execute(
                    "INSERT INTO spent VALUES (?, ?) ON CONFLICT (account) DO UPDATE SET cost = cost + excluded.cost",
                    (self._account, cost),
                )

    def reserve(self, worst: float, *, budget: float | None) -> int | None:
        """Return the id of a request about to be sent; None when it could exceed `budget`."""
        with self._transaction() as connection:
            # Spent plus reserved cost, a sum of many small floats, hence the tolerance of 1e-9.
            if budget is not None and self._spent(connection) + worst > budget * (1 + 1e-9):
                return None
            return connection.execute(
                "INSERT INTO sent (account, worst) VALUES (?, ?)", (self._account, worst)
            ).lastrowid

    def release(self, sent: int) -> None:
        """Remove a request that was certainly not charged."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM sent WHERE id = ?", (sent,))

    def spent(self) -> float:
        """Return the cost over all runs that used this file; lost answers count at their maximum cost."""
        with self._transaction() as connection:
            return self._spent(connection)

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _spent(self, connection: sqlite3.Connection) -> float:
        query = (
            "SELECT (SELECT coalesce(sum(cost), 0) FROM spent WHERE account = :account)"
            " + (SELECT coalesce(sum(worst), 0) FROM sent WHERE account = :account)"
        )
        return float(connection.execute(query, {"account": self._account}).fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explain_errors():
            if self._connection is None:
                self._connection = self._open()
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                yield self._connection

    def _open(self) -> sqlite3.Connection:
        with explain_os_errors(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._file, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            # A reader never waits for a writer, and a kill at any moment leaves complete transactions.
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._make_tables(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")  # two processes may be here at once
        with connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 0 and tables == 0:
                for statement in _TABLES.strip().splitlines():
                    connection.execute(statement)
            elif version != _VERSION:
                raise sqlite3.DatabaseError(f"it has version {version}, and this program writes version {_VERSION}")

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            words = str(error)
            if any(known in words for known in _FULL):
                what = "the disk must have free space; free some disk space"
            elif any(known in words for known in _READ_ONLY):
                what = "the file must be writable; make its folder writable"
            elif "locked" in words:
                what = "only one run at a time can write it; wait for the other run to end"
            else:
                what = (
                    "it must be a cache written by this program; move the file away (its replies are then requested "
                    "and paid for again, and the cost counts from 0)"
                )
            raise StoreError(f"{self._file}: {words}; {what}, then run the same command again") from error


def _read_reply(text: str) -> Reply:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
    }
    return Reply(**fields)
