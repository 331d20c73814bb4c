"""Files that are either whole or not there: written under a temporary name, flushed to disk, renamed."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from selfreward.errors import StoreError


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an operating system's error on `path` into one that says what to do."""
    try:
        yield
    except StoreError:
        raise
    except OSError as error:
        advice = {
            errno.ENOSPC: "free some disk space",
            errno.EDQUOT: "raise the disk quota",
            errno.EACCES: "make its folder writable, or choose another place",
            errno.EPERM: "make its folder writable, or choose another place",
            errno.EROFS: "choose a place on a writable disk",
            errno.ENOTDIR: "choose a place whose parents are folders",
            errno.EEXIST: "choose a place whose parents are folders",
            errno.EISDIR: "name a file, not a folder",
            errno.ENAMETOOLONG: "choose a shorter name",
        }.get(error.errno or 0, "check the disk")
        raise StoreError(
            f"{path}: {os.strerror(error.errno) if error.errno else error}; a place that can be written is needed "
            "(a run's is its output_dir); "
            f"{advice}, then give the same command again: nothing finished is lost"
        ) from error


def write_atomically(
    path: Path, write: Callable[[Path], object], *, record: Callable[[Path], object] = lambda _: None
) -> None:
    """`write` fills a temporary file beside `path`, which takes its place only when it is complete on disk.

    `record` is called with the complete temporary file, before it gets its name: whoever sees the name can rely on the
    record. A kill in between leaves a file that `final_name_of` tells the name of.
    """
    # With the process id, because a report may be written again while the run works.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():  # found out now, and not when the file is complete
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
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


def final_name_of(partial: Path) -> Path:
    """What a temporary file of `write_atomically` was to be called."""
    return partial.with_name(partial.name[1:].rsplit(".", 2)[0])


def write_text_atomically(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def flush(path: Path) -> None:
    """fsync a file, or a folder so that a rename in it lasts."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(folder: Path) -> str:
    """One hash over all weight files of a model folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        digest.update(f"{path.name}:{sha256_of(path)}\n".encode())
    return digest.hexdigest()
