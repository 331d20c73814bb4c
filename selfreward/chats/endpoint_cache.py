"""Replies that were paid for, and what they cost, in one SQLite file: what has arrived survives any kill."""

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
from selfreward.store.files import explained

_VERSION = 1
_TABLES = """
CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE spent (account TEXT PRIMARY KEY, cost REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE sent (id INTEGER PRIMARY KEY, account TEXT NOT NULL, worst REAL NOT NULL);
PRAGMA user_version = 1;
"""
# The most that SQLite has always allowed in one query is 999.
_KEYS_PER_QUERY = 500
_FULL, _READ_ONLY = ("disk is full", "disk I/O error"), ("readonly", "unable to open")


class ReplyCache:
    """Opened at its first use; threads may share it.

    A row of `sent` is a request that may be paid, at its worst case. It goes when the reply comes (what that cost is
    then in `spent`) or when the server refused it. One whose answer was lost, by a time-out or because this process was
    killed, stays: whoever has a budget counts on having paid it.
    """

    def __init__(self, file: Path, *, account: str) -> None:
        self._file = file
        self._account = account
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Those of `keys` that are there."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Reply] = {}
        with self._transaction() as connection:
            for start in range(0, len(wanted), _KEYS_PER_QUERY):
                some = wanted[start : start + _KEYS_PER_QUERY]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", some)
                found |= {key: _read_reply(text) for key, text in rows}
        return found

    def keep(self, replies: Mapping[str, Reply], *, sent: int | None = None, cost: float = 0.0) -> None:
        """Replies, the end of the request `sent` and its cost, all in one transaction."""
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
        """The id of a request that is about to be sent; None when it could go beyond `budget`."""
        with self._transaction() as connection:
            # What is spent and may yet be: a sum of many small floats, so a billionth of slack.
            if budget is not None and self._spent(connection) + worst > budget * (1 + 1e-9):
                return None
            return connection.execute(
                "INSERT INTO sent (account, worst) VALUES (?, ?)", (self._account, worst)
            ).lastrowid

    def release(self, sent: int) -> None:
        """The request was surely not paid."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM sent WHERE id = ?", (sent,))

    def spent(self) -> float:
        """In all runs that used this file; requests of unknown end count at their worst case."""
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
        with self._lock, self._explained():
            if self._connection is None:
                self._connection = self._open()
            self._connection.execute("BEGIN IMMEDIATE")
            with self._connection:  # commits, or rolls back
                yield self._connection

    def _open(self) -> sqlite3.Connection:
        with explained(self._file):
            self._file.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._file, timeout=60, isolation_level=None, check_same_thread=False)
        try:
            # A reader never waits for a writer, and a kill at any moment leaves whole transactions.
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
                raise sqlite3.DatabaseError(f"it is of version {version}, and this program writes version {_VERSION}")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, ValueError, TypeError) as error:
            words = str(error)
            if any(known in words for known in _FULL):
                what = "a disk with room is needed; free some disk space"
            elif any(known in words for known in _READ_ONLY):
                what = "a file that can be written is needed; make its folder writable"
            elif "locked" in words:
                what = "one run at a time writes it; wait for the other one to end"
            else:
                what = (
                    "a cache that this program wrote is needed; move the file away (replies that are only there are "
                    "asked and paid for again, and what was spent counts from 0)"
                )
            raise StoreError(f"{self._file}: {words}; {what}, then give the same command again") from error


def _read_reply(text: str) -> Reply:
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()
    }
    return Reply(**fields)
