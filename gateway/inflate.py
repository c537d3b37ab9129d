"""Request bodies with Content-Encoding: gzip, inflated within the limits of plain ones.

A bomb is refused as soon as one byte too many has come out of it; nothing beyond is ever made.
"""

import zlib
from typing import Any, Final

from gateway.errors import HttpError, body_too_large
from services.kit.errors import FieldProblem, InvalidArgumentError

# RFC 1952 lets members follow each other; each costs some microseconds, however small it is.
MEMBERS_MAX: Final = 1_000
# zlib: a window of up to 32 KiB, with the header and trailer of gzip.
_GZIP_WINDOW_BITS: Final = 16 + zlib.MAX_WBITS
_GZIP_NAMES: Final = (b"gzip", b"x-gzip")


def is_gzip(content_encoding: bytes | None) -> bool:
    """Whether a body is compressed; HttpError 415 for any other encoding (RFC 9110, 8.4.1)."""
    name = (content_encoding or b"").strip().lower()
    if name in (b"", b"identity"):
        return False
    if name in _GZIP_NAMES:
        return True
    raise unsupported_encoding("Content-Encoding must be gzip or left out", "gzip")


def unsupported_encoding(message: str, allowed: str) -> HttpError:
    """415, with the encodings that are allowed (RFC 9110, 15.5.16)."""
    headers = {"accept-encoding": allowed}
    return HttpError(415, "unsupported_content_encoding", message, headers=headers)


class Inflater:
    """Inflates one body, piece by piece."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: list[bytes] = []
        self._size = 0
        self._members = 0
        self._member: Any = None

    def feed(self, data: bytes) -> None:
        """Take the next piece; InvalidArgumentError, or HttpError 413 when it is too much."""
        while data:
            if self._member is None:
                self._begin_member()
            try:
                # One byte more than there is room for shows that it is too much.
                piece = self._member.decompress(data, self._bytes_max - self._size + 1)
            except zlib.error:
                raise _malformed("is not valid gzip") from None
            self._pieces.append(piece)
            self._size += len(piece)
            if self._size > self._bytes_max:
                raise body_too_large(self._bytes_max)
            if self._member.eof:
                data = self._member.unused_data
                self._member = None
            else:
                data = self._member.unconsumed_tail

    def _begin_member(self) -> None:
        if self._members == MEMBERS_MAX:
            raise _malformed(f"must have at most {MEMBERS_MAX} gzip members")
        self._members += 1
        self._member = zlib.decompressobj(_GZIP_WINDOW_BITS)

    def finish(self) -> bytes:
        """The whole body; InvalidArgumentError when its end is missing."""
        if self._member is not None or not self._members:
            raise _malformed("is gzip whose end is missing")
        return b"".join(self._pieces)


def _malformed(message: str) -> InvalidArgumentError:
    return InvalidArgumentError([FieldProblem("body", message)])
