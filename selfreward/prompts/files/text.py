"""Text of a file as a stream: its encoding by the first bytes, decompressed, with bounds on lines and on the whole."""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any, Final, TextIO

from selfreward.errors import RecipeError

MAX_LINE_CHARS: Final = 2**24
MAX_EXPANSION: Final = 50
"""How much larger than its file a decompressed text may be; texts compress to a third or a tenth."""

MAX_BLANK_LINES: Final = 100_000
UNREADABLE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
_ALWAYS_ALLOWED_BYTES = 2**26


def _open_zstandard(path: Path) -> IO[bytes]:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")  # type: ignore[no-any-return]


_OPENERS: Final[dict[str, Callable[[Path], Any]]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": _open_zstandard,
}


@contextmanager
def open_text(path: Path, name: str, *, newline: str = "\n") -> Iterator[TextIO]:
    """Open a text file, compressed or not; bytes that are not UTF-8 become lone surrogates. Raises RecipeError."""
    try:
        with open_bytes(path, name) as binary:
            encoding = json.detect_encoding(binary.peek(4)[:4])
            # In UTF-8 a wrong byte spoils only its row, which is then refused for the surrogate.
            errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
            yield io.TextIOWrapper(binary, encoding=encoding, errors=errors, newline=newline)
    except UNREADABLE as error:
        raise RecipeError(
            f"{name}: cannot be read ({getattr(error, 'strerror', None) or error}); a readable, complete file is "
            "needed; check its permissions and its suffix, or write it again"
        ) from error


def read_lines(stream: TextIO, name: str) -> Iterator[tuple[int, str]]:
    """Yield number and text of each line. Raises RecipeError for an endless one, and for endless blank lines."""
    num_blank = 0
    for number in count(1):
        line = stream.readline(MAX_LINE_CHARS + 1)
        if not line:
            return
        if len(line) > MAX_LINE_CHARS:
            raise RecipeError(
                f"{name}, line {number}: it has more than {MAX_LINE_CHARS:,} characters; a line is one row, or one "
                "line of a cell; check that the file is what its suffix says"
            )
        num_blank = 0 if line.strip() else num_blank + 1
        if num_blank > MAX_BLANK_LINES:
            raise RecipeError(
                f"{name}, line {number}: more than {MAX_BLANK_LINES:,} blank lines; a line is one row; check that the "
                "file is what its suffix says"
            )
        yield number, line


def open_bytes(path: Path, name: str) -> io.BufferedReader:
    """Open a file, decompressed with a bound on its size. Raises what `UNREADABLE` lists, and RecipeError."""
    opener = _OPENERS.get(path.suffix.lower())
    if opener is None:
        return path.open("rb")
    limit = max(_ALWAYS_ALLOWED_BYTES, MAX_EXPANSION * path.stat().st_size)
    return io.BufferedReader(_Bounded(opener(path), limit, name))


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends with an error when it grows beyond `limit` bytes."""

    def __init__(self, stream: IO[bytes], limit: int, name: str) -> None:
        self._stream, self._left, self._name = stream, limit, name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise RecipeError(
                f"{self._name}: it decompresses to more than {MAX_EXPANSION} times its size; a text does not; "
                "decompress it yourself if that is meant"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()
