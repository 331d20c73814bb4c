"""The body of an answer, decompressed and bounded while it is read: what a server sends costs bounded memory."""

import zlib
from collections.abc import AsyncIterator, Callable

from selfreward.chats.endpoint_refusals import TooLarge

ACCEPTED_ENCODINGS = "gzip"
# Takes some bytes and the largest number of bytes wanted, at least 1; returns decoded bytes.
Decoder = Callable[[bytes, int], bytes]


async def read_body(pieces: AsyncIterator[bytes], *, encoding: str, max_bytes: int, whole: bool) -> bytes:
    """Return the decoded body, at most `max_bytes`. Raises TooLarge if `whole` and there is more.

    Raises ValueError for an encoding that was not asked for, and for a body that is not in this encoding.
    """
    decode = _decoder(encoding)
    body = bytearray()
    async for piece in pieces:
        body += decode(piece, max_bytes + 1 - len(body))
        if len(body) > max_bytes:
            if whole:
                raise TooLarge
            return bytes(body[:max_bytes])
    return bytes(body)


def _decoder(encoding: str) -> Decoder:
    match encoding.strip().lower():
        case "" | "identity":
            return lambda piece, limit: piece[:limit]
        case "gzip" | "x-gzip" | "deflate":
            return _inflate(zlib.decompressobj(zlib.MAX_WBITS | 32))  # gzip or zlib, by the first bytes
    raise ValueError(f"the body is encoded as {encoding[:40]!r}, but only gzip was asked for")


def _inflate(stream: "zlib._Decompress") -> Decoder:
    def decode(piece: bytes, limit: int) -> bytes:
        try:
            return stream.decompress(piece, limit)
        except zlib.error as error:
            raise ValueError(f"the body is not what its encoding says: {error}") from None

    return decode
