"""The file of paid replies: complete lines only, no locks, and no damage that is silent."""

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from selfreward.chats.endpoint_cache import ReplyCache
from selfreward.errors import StoreError
from selfreward.requests import Reply

REPLIES = {
    "a": Reply(text="half \x00 of \r\n it \u2028 é 😀", finish_reason="length"),
    "b": Reply(text="4", finish_reason="stop", choice_logprobs=(-math.inf, -0.25)),
    "c": Reply(skipped="refused"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "endpoints" / "grader.jsonl"


def cache_of(file: Path, account: str = "grader") -> ReplyCache:
    return ReplyCache(file, account=account)


def filled(file: Path) -> ReplyCache:
    cache = cache_of(file)
    for key, reply in REPLIES.items():
        cache.store({key: reply}, sent=cache.reserve(5.0, budget=100.0), cost=1.5)
    return cache


def test_what_is_stored_is_read_by_this_and_the_next_session(file: Path) -> None:
    cache = filled(file)
    for reader in (cache, cache_of(file)):
        assert reader.read(["b", "x", "a", "c", "a"]) == {key: REPLIES[key] for key in "bac"}
        assert reader.spent() == 4.5
        assert reader.notes == ()
        assert reader.holds_served()
    assert all(json.loads(line) for line in file.read_text("utf-8").splitlines())


def test_a_later_reply_counts(file: Path) -> None:
    cache = filled(file)
    cache.store({"a": Reply(text="again")})
    assert cache_of(file).read(["a"]) == {"a": Reply(text="again")}


def test_requests_in_flight_count_at_their_maximum_cost_by_account(file: Path) -> None:
    cache, other = cache_of(file), cache_of(file, "other")
    first, second = cache.reserve(4.0, budget=10.0), cache.reserve(5.0, budget=10.0)
    assert first is not None and second is not None
    assert other.reserve(9.0, budget=10.0) is not None
    assert cache.reserve(2.0, budget=10.0) is None
    cache.release(first)
    cache.store({"a": REPLIES["a"]}, sent=second, cost=1.0)
    assert cache.reserve(9.0, budget=10.0) is not None
    assert (cache.spent(), cache_of(file).spent(), cache_of(file, "other").spent()) == (10.0, 10.0, 9.0)


def test_notes_are_stored_once(file: Path) -> None:
    cache = cache_of(file)
    cache.note("a sentence")
    cache.note("a sentence")
    assert cache.notes == ("a sentence",)
    again = cache_of(file)
    again.read([])
    again.note("a sentence")
    assert again.notes == ("a sentence",)


def test_two_processes_may_append_to_one_file(file: Path) -> None:
    first, second = cache_of(file), cache_of(file)
    first.read([])
    second.store({"a": REPLIES["a"]}, sent=second.reserve(5.0, budget=6.0), cost=5.0)
    assert first.read(["a"]) == {"a": REPLIES["a"]}
    assert first.reserve(5.0, budget=6.0) is None


def test_threads_share_a_cache(file: Path) -> None:
    cache = cache_of(file)

    def store(thread: int) -> None:
        for i in range(40):
            cache.store({f"{thread}-{i}": Reply(text=f"text {thread} {i}")})
            assert cache.read([f"{thread}-{i}"])[f"{thread}-{i}"].text == f"text {thread} {i}"

    threads = [threading.Thread(target=store, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [f"{thread}-{i}" for thread in range(4) for i in range(40)]
    assert list(cache_of(file).read(keys)) == keys


def test_a_line_cut_anywhere_is_removed_with_a_note_and_all_before_it_is_kept(file: Path) -> None:
    filled(file).close()
    raw = file.read_bytes()
    *_, last = raw.splitlines(keepends=True)
    for cut in range(len(raw) - len(last) + 1, len(raw)):
        file.write_bytes(raw[:cut])
        cache = cache_of(file)
        assert cache.read("abc") == {key: REPLIES[key] for key in "ab"}
        assert "was incomplete" in cache.notes[0]
        assert cache.spent() == 3.0 + 5.0  # the request was sent
        cache.store({"c": REPLIES["c"]})
        cache.close()
        again = cache_of(file)
        assert again.read("abc") == REPLIES and again.notes == ()
        again.close()


def test_an_empty_file_is_said_to_be_empty(file: Path) -> None:
    file.parent.mkdir()
    file.touch()
    cache = cache_of(file)
    assert cache.read("a") == {}
    assert "was empty" in cache.notes[0]
    cache.store({"a": REPLIES["a"]})
    assert cache_of(file).read("a") == {"a": REPLIES["a"]}


def damage(file: Path, kind: str) -> None:
    filled(file).close()
    lines = file.read_bytes().splitlines(keepends=True)
    match kind:
        case "flipped":
            lines[2] = lines[2].replace(b'"replies"', b'"repl\x00es"')
        case "not utf-8":
            lines[2] = b"\xff\xfe" * 40 + b"\n"
        case "another entry":
            lines[2] = b'{"what": 1}\n'
        case "another reply":
            lines[2] = b'{"replies": {"a": {"text": 3}}}\n'
        case "unknown field":
            lines[2] = b'{"replies": {"a": {"words": "x"}}}\n'
        case "a number":
            lines[2] = b"3\n"
        case "deep":
            lines[2] = b"[" * 100_000 + b"\n"
        case "text":
            lines = [b"my notes\n"]
        case "another version":
            lines[0] = lines[0].replace(b"2", b"3")
        case "begins too late":
            lines = lines[1:]
        case "cut in the header":
            lines = [lines[0][:10]]
        case "nul":
            lines = [b"\0" * 4096]
    file.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "kind",
    ["flipped", "not utf-8", "another entry", "another reply", "unknown field", "a number", "deep", "text",
     "another version", "begins too late", "cut in the header", "nul"],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_refused_unchanged(file: Path, kind: str) -> None:
    damage(file, kind)
    raw = file.read_bytes()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"grader\.jsonl: .*move the file away.*paid for again.*same command"):
            cache_of(file).read("abc")
    assert file.read_bytes() == raw


def test_links_pipes_and_folders_are_not_written_to(file: Path, tmp_path: Path) -> None:
    file.parent.mkdir()
    target = tmp_path / "target"
    target.touch()
    file.symlink_to(target)
    with pytest.raises(StoreError, match="symbolic link"):
        cache_of(file).store({"a": REPLIES["a"]})
    assert target.read_bytes() == b""
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(StoreError, match="not a file of replies"):
        cache_of(file).store({"a": REPLIES["a"]})
    file.unlink()
    file.mkdir()
    with pytest.raises(StoreError, match="give a file, not a folder"):
        cache_of(file).store({"a": REPLIES["a"]})


def test_a_full_disk_leaves_only_complete_lines(file: Path) -> None:
    """A limit of the process on the size of files stands for the disk."""
    code = (
        "import resource, signal, sys\nfrom pathlib import Path\n"
        "from selfreward.chats.endpoint_cache import ReplyCache\nfrom selfreward.requests import Reply\n"
        "from selfreward.errors import StoreError\n"
        "cache = ReplyCache(Path(sys.argv[1]), account='grader')\ncache.store({'a': Reply(text='kept')})\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    cache.store({'b': Reply(text='b' * 2000)})\nexcept StoreError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True).stdout
    assert "File too large" in said and "same command again" in said
    cache = cache_of(file)
    assert cache.read("ab") == {"a": Reply(text="kept")}
    assert cache.notes == ()


# --- caches of version 0.1 -------------------------------------------------------------------------------------------


def earlier_cache(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file.with_suffix(".sqlite"), isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE spent (account TEXT PRIMARY KEY, cost REAL NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE sent (id INTEGER PRIMARY KEY, account TEXT NOT NULL, worst REAL NOT NULL)")
    connection.execute("PRAGMA user_version = 1")
    rows = {"a": {"text": "one", "finish_reason": "stop", "choice_logprobs": [-math.inf, -0.5], "unsent": None}}
    rows["b"] = {"text": "", "unsent": "refused"}
    rows["c"] = {"text": "two", "skipped": None}
    connection.executemany("INSERT INTO replies VALUES (?, ?)", [(key, json.dumps(row)) for key, row in rows.items()])
    connection.execute("INSERT INTO spent VALUES ('grader', 2.5)")
    connection.execute("INSERT INTO sent (account, worst) VALUES ('grader', 4.0)")
    return connection


EARLIER = {
    "a": Reply(text="one", finish_reason="stop", choice_logprobs=(-math.inf, -0.5)),
    "b": Reply(skipped="refused"),
    "c": Reply(text="two"),
}


def test_replies_of_an_earlier_version_are_taken_over(file: Path) -> None:
    with closing(earlier_cache(file)):  # as after a kill: the newest replies are in the log
        before = file.with_suffix(".sqlite").read_bytes()
        for _ in range(2):
            cache = cache_of(file)
            assert cache.read("abc") == EARLIER
            assert cache.spent() == 6.5
            cache.close()
        assert file.with_suffix(".sqlite").read_bytes() == before


@pytest.mark.parametrize("raw", [b"not a database" * 400, b"", None])
def test_a_damaged_cache_of_an_earlier_version_is_refused(file: Path, raw: bytes | None) -> None:
    earlier_cache(file).close()
    earlier = file.with_suffix(".sqlite")
    earlier.write_bytes(earlier.read_bytes()[:5000] if raw is None else raw)
    with pytest.raises(StoreError, match=r"grader\.sqlite: .*move the file away.*paid for again"):
        cache_of(file).read("abc")
    assert not file.exists()


LOCKLESS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int flock(int fd, int op) { errno = ENOLCK; return -1; }
static int call(const char *name, int fd, int cmd, void *arg) {
  if (cmd == F_SETLK || cmd == F_SETLKW || cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW) { errno = ENOLCK; return -1; }
  return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, name))(fd, cmd, arg);
}
#define WRAP(name) int name(int fd, int cmd, ...) { \
  va_list all; va_start(all, cmd); void *arg = va_arg(all, void *); va_end(all); return call(#name, fd, cmd, arg); }
WRAP(fcntl)
WRAP(fcntl64)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("gcc") is None, reason="makes a disk without locks by a shim"
)
def test_on_a_disk_without_locks_replies_are_stored_and_earlier_ones_read(file: Path, tmp_path: Path) -> None:
    source, shim = tmp_path / "lockless.c", tmp_path / "lockless.so"
    source.write_text(LOCKLESS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    code = (
        "import fcntl, os, sys\nfrom pathlib import Path\n"
        "from selfreward.chats.endpoint_cache import ReplyCache\nfrom selfreward.requests import Reply\n"
        "try:\n    fcntl.lockf(os.open(sys.argv[2], os.O_RDWR), fcntl.LOCK_EX)\n    sys.exit('a lock was given')\n"
        "except OSError:\n    pass\n"
        "cache = ReplyCache(Path(sys.argv[1]), account='grader')\n"
        "cache.store({'d': Reply(text='new')}, sent=cache.reserve(1.0, budget=None), cost=1.0)\n"
    )
    with closing(earlier_cache(file)):
        environment = {**os.environ, "LD_PRELOAD": str(shim)}
        subprocess.run([sys.executable, "-c", code, str(file), str(source)], env=environment, check=True)
    cache = cache_of(file)
    assert cache.read("abcd") == EARLIER | {"d": Reply(text="new")}
    assert cache.spent() == 7.5
