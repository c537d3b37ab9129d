"""Frames, settings and errors of HTTP/2 (RFC 9113), as they are on the wire."""

import struct
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
WITH_PRIORITY: Final = 0x20
PRIORITY_BYTES: Final = 5

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5
MAX_HEADER_LIST_SIZE: Final = 6
SETTING_BYTES: Final = 6

# What everybody takes, so it is never exceeded, and never offered to be.
FRAME_BYTES_MAX: Final = 16_384
FRAME_BYTES_LIMIT: Final = 2**24 - 1
WINDOW_BYTES_DEFAULT: Final = 65_535
WINDOW_BYTES_LIMIT: Final = 2**31 - 1
STREAM_MASK: Final = 2**31 - 1

# Length and type together, flags, stream.
HEAD: Final = struct.Struct(">IBI")


class ErrorCode(IntEnum):
    """RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11


class ConnectionFailure(Exception):  # noqa: N818 (as the RFC calls it, but for ConnectionError's sake)
    """What the peer did ends the connection: GOAWAY with the code and the sentence."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class StreamFailure(Exception):  # noqa: N818
    """What the peer did ends one stream: RST_STREAM with the code."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes | memoryview = b"") -> bytes:
    """A frame; `payload` has at most FRAME_BYTES_MAX."""
    return b"".join((HEAD.pack(len(payload) << 8 | kind, flags, stream), payload))


def settings_frame(values: dict[int, int]) -> bytes:
    """SETTINGS with these values."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *each) for each in values.items()))


def goaway_frame(last_stream: int, code: ErrorCode, sentence: str = "") -> bytes:
    """Streams above `last_stream` were not, and will not be, looked at."""
    return frame(GOAWAY, 0, 0, struct.pack(">II", last_stream, code) + sentence.encode())


def number_frame(kind: int, stream: int, number: int) -> bytes:
    """RST_STREAM with a code, or WINDOW_UPDATE with an increment."""
    return frame(kind, 0, stream, number.to_bytes(4, "big"))


def without_padding(flags: int, payload: bytes) -> bytes:
    """What a DATA or HEADERS frame carries; ConnectionFailure when there is more padding than
    frame.
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "no room for the padding's length")
    if payload[0] >= len(payload):
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "more padding than frame")
    return payload[1 : len(payload) - payload[0]]
