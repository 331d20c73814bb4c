"""Paid replies and their cost in one file, to which only complete lines are appended: they survive any kill.

A plain file needs no locks, so it works on network disks too. Each line is one JSON object: the request `sent` that may
be charged, at its maximum cost; the same `released` when the server refused it; or its end (`done`), with the cost and
the replies, as one line, so that a reply and its cost are stored together. A request whose answer was lost, by a
time-out or a kill of this process, stays `sent`: the budget counts it as charged.

A line that is not complete is the end of a process that was killed, and is removed. Another process may append to the
same file: its lines are read before each decision.
"""

import contextlib
import json
import os
import stat
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selfreward.chats import endpoint_cache_sqlite
from selfreward.errors import StoreError
from selfreward.requests import Reply
from selfreward.store.files import explain_os_errors, write_text_atomically

_HEADER = {"selfreward": "replies", "version": 2}
_SUFFIX_BEFORE = ".sqlite"
_PIECE_BYTES = 2**24


class ReplyCache:
    """A cache of replies, opened at its first use; threads may share it. Replies themselves stay on disk."""

    def __init__(self, file: Path, *, account: str) -> None:
        self._file = file
        self._account = account
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._end = 0  # of the lines that were read
        self._places: dict[str, tuple[int, int]] = {}  # key of a reply -> start and length of its line
        self._spent: defaultdict[str, float] = defaultdict(float)
        self._sent: dict[str, tuple[str, float]] = {}  # id of a request -> account, maximum cost
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the replies in the file, and about the file."""
        return tuple(self._notes)

    def note(self, words: str) -> None:
        """Store once what the user should know about replies in this file."""
        with self._lock, explain_os_errors(self._file):
            self._catch_up()
            if words not in self._notes:
                self._write({"note": words}, durable=False)

    def read(self, keys: Iterable[str]) -> dict[str, Reply]:
        """Return the cached replies among `keys`."""
        with self._lock, explain_os_errors(self._file):
            self._catch_up()
            return {key: self._read_reply(key) for key in dict.fromkeys(keys) if key in self._places}

    def holds_served(self) -> bool:
        """Return whether the server has ever given a reply with a text."""
        with self._lock, explain_os_errors(self._file):
            self._catch_up()
            return any(self._read_reply(key).skipped is None for key in self._places)

    def store(self, replies: Mapping[str, Reply], *, sent: str | None = None, cost: float = 0.0) -> None:
        """Store replies, the end of the request `sent` and its cost, as one line."""
        stored = {key: asdict(reply) for key, reply in replies.items()}
        end = {} if sent is None else {"done": sent, "account": self._account, "cost": cost}
        self._append({"replies": stored, **end}, durable=True)

    def reserve(self, worst: float, *, budget: float | None) -> str | None:
        """Return the id of a request about to be sent; None when it could exceed `budget`."""
        with self._lock, explain_os_errors(self._file):
            self._catch_up()
            # Spent plus reserved cost, a sum of many small floats, hence the tolerance of 1e-9.
            if budget is not None and self._cost() + worst > budget * (1 + 1e-9):
                return None
            sent = uuid.uuid4().hex
            self._write({"sent": sent, "account": self._account, "worst": worst}, durable=False)
            return sent

    def release(self, sent: str) -> None:
        """Remove a request that was certainly not charged."""
        self._append({"released": sent}, durable=False)

    def spent(self) -> float:
        """Return the cost over all runs that used this file; lost answers count at their maximum cost."""
        with self._lock, explain_os_errors(self._file):
            self._catch_up()
            return self._cost()

    def close(self) -> None:
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None
                self._forget()

    def _cost(self) -> float:
        return self._spent[self._account] + sum(worst for name, worst in self._sent.values() if name == self._account)

    def _append(self, entry: Mapping[str, Any], *, durable: bool) -> None:
        with self._lock, explain_os_errors(self._file):
            self._catch_up()
            self._write(entry, durable=durable)

    def _write(self, entry: Mapping[str, Any], *, durable: bool) -> None:
        """Append one line with one system call; of a line that does not fit on the disk nothing remains."""
        assert self._descriptor is not None
        line = json.dumps(entry).encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
            if durable:
                os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                if written < len(line) and os.fstat(self._descriptor).st_size == self._end + written:
                    os.ftruncate(self._descriptor, self._end)
            raise
        self._catch_up()

    def _catch_up(self) -> None:
        """Read the lines that this process or another one has appended."""
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        size = os.fstat(self._descriptor).st_size
        if size < self._end:
            raise StoreError(
                f"{self._file}: it became shorter while it was used; only this program may change it; run the same "
                "command again"
            )
        self._read_lines(size)

    def _read_lines(self, size: int) -> None:
        """Read the complete lines of the file, of `size` bytes, in pieces."""
        assert self._descriptor is not None
        length = _PIECE_BYTES
        while self._end < size:
            raw = _pread(self._descriptor, min(length, size - self._end), self._end)
            *lines, rest = raw.split(b"\n")
            self._apply(lines)
            if len(rest) == size - self._end:
                break  # the last line, not complete
            length = length if lines else 2 * length

    def _apply(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            try:
                self._apply_entry(json.loads(line), self._end, len(line))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise StoreError(
                    f"{self._file}: the line at byte {self._end:,} is damaged; each line must be one that this program "
                    "wrote; remove this line, or move the file away if there are more (replies in them are then "
                    "requested and paid for again), and run the same command again"
                ) from None
            self._end += len(line) + 1

    def _apply_entry(self, entry: Mapping[str, Any], start: int, length: int) -> None:
        if start == 0:
            if entry != _HEADER:
                raise self._foreign()
            return
        match entry:
            case {"sent": str(sent), "account": str(account), "worst": worst}:
                self._sent[sent] = account, float(worst)
            case {"released": str(sent)}:
                self._sent.pop(sent, None)
            case {"note": str(words)}:
                self._notes.append(words)
            case {"spent": dict(costs)}:
                for account, cost in costs.items():
                    self._spent[account] += float(cost)
            case {"replies": dict(replies)}:
                for key, fields in replies.items():
                    _reply(fields)  # raises for a damaged one
                    self._places[key] = start, length
                if "done" in entry:
                    self._sent.pop(entry["done"], None)
                    self._spent[entry["account"]] += float(entry["cost"])
            case _:
                raise ValueError("an entry of another kind")

    def _read_reply(self, key: str) -> Reply:
        start, length = self._places[key]
        assert self._descriptor is not None
        return _reply(json.loads(_pread(self._descriptor, length, start))["replies"][key])

    def _open(self) -> None:
        self._make()
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(self._file, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise self._foreign()
            self._descriptor = descriptor
            self._read_all()
        except BaseException:
            os.close(descriptor)
            self._descriptor = None
            self._forget()
            raise

    def _make(self) -> None:
        """Make the file, with the replies of a cache of an earlier version beside it; a kill leaves none or all."""
        if self._file.is_symlink():
            raise StoreError(
                f"{self._file}: it is a symbolic link; replies are written only to a file of this program; replace it "
                "by the file that it points to, and run the same command again"
            )
        is_empty = self._file.is_file() and self._file.stat().st_size == 0
        if self._file.exists() and not is_empty:
            return
        if is_empty:
            self._notes.append(f"{self._file} was empty: if it had stored replies, they are paid for again")
        before = self._file.with_suffix(_SUFFIX_BEFORE)
        entries = endpoint_cache_sqlite.entries(before) if before.is_file() else ()
        write_text_atomically(self._file, "".join(json.dumps(entry) + "\n" for entry in (_HEADER, *entries)))

    def _read_all(self) -> None:
        descriptor = self._descriptor
        assert descriptor is not None
        head = _pread(descriptor, len(json.dumps(_HEADER)) + 1, 0)
        if head != json.dumps(_HEADER).encode() + b"\n":
            raise self._foreign()
        size = os.fstat(descriptor).st_size
        self._read_lines(size)
        if self._end < size:
            os.ftruncate(descriptor, self._end)
            self._notes.append(
                f"the last line of {self._file} was incomplete, from a process that was killed or a file that was cut: "
                "its reply is requested again"
            )

    def _forget(self) -> None:
        self._end = 0
        self._places.clear()
        self._spent.clear()
        self._sent.clear()

    def _foreign(self) -> StoreError:
        return StoreError(
            f"{self._file}: not a file of replies of this version; it must be one that this program wrote; move the "
            "file away (its replies are then requested and paid for again, and the cost counts from 0), then run the "
            "same command again"
        )


def _pread(descriptor: int, length: int, start: int) -> bytes:
    """Return `length` bytes; one call may give less of a large file."""
    parts: list[bytes] = []
    while length > 0 and (part := os.pread(descriptor, length, start)):
        parts.append(part)
        start, length = start + len(part), length - len(part)
    return b"".join(parts)


def _reply(fields: Mapping[str, Any]) -> Reply:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    reply = Reply(**values)
    if not isinstance(reply.text, str) or not isinstance(reply.skipped, str | None):
        raise TypeError("a reply of another form")
    return reply
