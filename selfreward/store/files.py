"""Files that are either complete or absent: written under a temporary name, flushed to disk, renamed."""

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from selfreward.errors import StoreError

_PARTIAL = ".selfreward-partial"  # our own suffix: temporary files of other programs stay as they are
_MAX_TEXT_BYTES = 2**28


@contextlib.contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an operating system's error on `path` into a StoreError that states what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some disk space",
            errno.EDQUOT: "raise the disk quota",
            errno.EACCES: "make its folder writable, or choose another path",
            errno.EPERM: "make its folder writable, or choose another path",
            errno.EROFS: "choose a path on a writable disk",
            errno.ENOTDIR: "choose a path whose parents are folders",
            errno.EEXIST: "choose a path whose parents are folders",
            errno.EISDIR: "give a file, not a folder",
            errno.ENAMETOOLONG: "choose a shorter name",
            errno.ELOOP: "remove the link or special file of this name, which the program does not write through",
        }.get(error.errno or 0, "check the disk")
        raise StoreError(
            f"{path}: {os.strerror(error.errno) if error.errno else error}; the path must be writable (for a run it is "
            f"in output_dir); {advice}, then run the same command again: no finished work is lost"
        ) from error


def write_atomically(
    path: Path, write: Callable[[Path], object], *, record: Callable[[Path], object] = lambda _: None
) -> None:
    """Write a temporary file next to `path` with `write`, and rename it to `path` when it is complete on disk.

    `record` is called with the complete temporary file before it is renamed, so an existing `path` is always recorded.
    A kill before that leaves the temporary file `partial_name_of(path)`.
    """
    temporary = partial_name_of(path)
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # checked before the file is written
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
            temporary.unlink(missing_ok=True)  # never written through, should it be a link
            write(temporary)
            flush(temporary)
            flush(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        record(temporary)
        temporary.replace(path)
        flush(path.parent)


def partial_name_of(path: Path) -> Path:
    """Return a temporary name next to `path`; with the process id, as a report may be rewritten while the run works."""
    return path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")


def final_name_of(partial: Path) -> Path | None:
    """Return the path whose `partial_name_of` this is, or None for any other file."""
    found = re.fullmatch(rf"\.(.+)\.[0-9]+{re.escape(_PARTIAL)}", partial.name)
    return partial.with_name(found[1]) if found else None


def read_text(path: Path) -> str:
    """Return the UTF-8 text of a regular file, which somebody may have replaced since. Raises ValueError, OSError."""
    if not path.is_file():  # a pipe would block its reader, a device may never end
        raise ValueError("it is missing, or a folder, a pipe or a device")
    with path.open("rb") as file:
        content = file.read(_MAX_TEXT_BYTES + 1)
    if len(content) > _MAX_TEXT_BYTES:
        raise ValueError(f"it has more than {_MAX_TEXT_BYTES:,} bytes")
    return content.decode()


def write_text_atomically(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def flush(path: Path) -> None:
    """fsync a file, or a folder so that a rename in it is durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_hashes: dict[tuple[int, int, int, int], str] = {}
_SETTLED_S = 2.0  # a file that is written again within a tick of its clock would have the same time


def weight_file_sha256(path: Path) -> str:
    """Return the hash of a large file, computed once in a process as long as the file is not written again.

    It is known by inode, size and time of its last change, and so also after it was renamed.
    """
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        found = sha256_of(path)
        if time.time() - state.st_mtime < _SETTLED_S:
            return found
        _hashes[key] = found
    return _hashes[key]


def weights_sha256(folder: Path) -> str:
    """Return one hash over all weight files of a model folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{weight_file_sha256(path) if path.is_file() else 'not a file'}\n".encode())
    return digest.hexdigest()
