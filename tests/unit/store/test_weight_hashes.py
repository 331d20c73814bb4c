"""The hash of large files: computed once in a process, and again for a file that was written again."""

import os
import shutil
import time
from pathlib import Path

import pytest

from selfreward.store import files
from selfreward.store.files import weight_file_sha256, weights_sha256


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read, by name."""
    names: list[str] = []
    real = files.sha256_of
    monkeypatch.setattr(files, "sha256_of", lambda path: names.append(path.name) or real(path))
    return names


def settled(path: Path, content: bytes, *, age_s: float = 60) -> Path:
    path.write_bytes(content)
    written = time.time() - age_s
    os.utime(path, (written, written))
    return path


def test_a_file_is_read_once_also_after_it_was_moved(tmp_path: Path, hashed: list[str]) -> None:
    (tmp_path / "partial").mkdir()
    settled(tmp_path / "partial" / "model.safetensors", b"one")
    first = weights_sha256(tmp_path / "partial")
    (tmp_path / "partial").rename(tmp_path / "checkpoint")
    assert weights_sha256(tmp_path / "checkpoint") == first
    assert hashed == ["model.safetensors"]


def test_a_file_that_was_written_again_is_read_again(tmp_path: Path, hashed: list[str]) -> None:
    path = settled(tmp_path / "a.safetensors", b"one")
    first = weight_file_sha256(path)
    settled(path, b"two", age_s=30)  # of the same size
    second = weight_file_sha256(path)
    shutil.copyfile(path, tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").replace(path)
    assert weight_file_sha256(path) == second != first
    assert len(hashed) == 3


def test_a_file_just_written_is_not_remembered(tmp_path: Path, hashed: list[str]) -> None:
    """Two writes within one tick of the file system's clock have the same time."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"one")
    state = path.stat()
    first = weight_file_sha256(path)
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert weight_file_sha256(path) != first and len(hashed) == 2
