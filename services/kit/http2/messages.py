"""The messages of a call, taken out of the bytes that carry them."""

import struct
import zlib
from typing import Final

from grpc import StatusCode

from services.kit.grpc_client import MESSAGE_BYTES_MAX
from services.kit.http2.headers import ENCODINGS, RefusedError

# Whether it is compressed, and its length.
PREFIX: Final = struct.Struct(">BI")
# Of zlib: whose header it expects.
_WINDOW_BITS = {"gzip": 31, "deflate": 15}


class Received:
    """What has come of a call's messages and was not taken yet, at most one message unless more
    than that came in a stream's window.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._bytes = bytearray()
        # Of the first message with its prefix; 0: not known yet.
        self._first_size = 0

    def __len__(self) -> int:
        """In bytes."""
        return len(self._bytes)

    @property
    def has_one(self) -> bool:
        """Whether take() gives a message."""
        return 0 < self._first_size <= len(self._bytes)

    def add(self, payload: bytes) -> None:
        """RefusedError when the first message is one that is not taken, before it is held."""
        self._bytes += payload
        self._look()

    def take(self) -> bytes:
        """The first message, unpacked. RefusedError."""
        with memoryview(self._bytes) as view:
            compressed = view[0]
            message = bytes(view[PREFIX.size : self._first_size])
        del self._bytes[: self._first_size]
        self._first_size = 0
        self._look()
        return unpacked(message, self._encoding) if compressed else message

    def _look(self) -> None:
        if not self._first_size and len(self._bytes) >= PREFIX.size:
            flag, length = PREFIX.unpack_from(self._bytes)
            check_prefix(flag, length)
            self._first_size = PREFIX.size + length


def check_prefix(flag: int, length: int) -> None:
    """RefusedError for a message that is not taken."""
    if flag > 1:
        raise RefusedError(StatusCode.INTERNAL, f"A message has the unknown flag {flag}")
    if length > MESSAGE_BYTES_MAX:
        raise too_large(length)


def too_large(length: int) -> RefusedError:
    """In the words of grpc's own servers."""
    return RefusedError(
        StatusCode.RESOURCE_EXHAUSTED,
        f"Received message larger than max ({length} vs. {MESSAGE_BYTES_MAX})",
    )


def unpacked(message: bytes, encoding: str) -> bytes:
    """What was compressed, at most MESSAGE_BYTES_MAX. RefusedError."""
    if encoding == ENCODINGS[0]:
        raise RefusedError(StatusCode.INTERNAL, "A message is compressed, nobody says how")
    unzip = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        found = unzip.decompress(message, MESSAGE_BYTES_MAX + 1)
    except zlib.error as error:
        raise RefusedError(StatusCode.INTERNAL, "A message can't be unpacked") from error
    if len(found) > MESSAGE_BYTES_MAX:
        raise too_large(len(found))
    if not unzip.eof or unzip.unused_data:
        raise RefusedError(StatusCode.INTERNAL, "A message can't be unpacked")
    return found
