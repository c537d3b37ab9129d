"""Header blocks (RFC 7541) and what gRPC says in them: requests are read, answers are written.

Clients are told that there is no table (HEADER_TABLE_SIZE 0). From their acknowledgement on a block
depends on nothing that came before it, so the same bytes say the same on every connection.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from grpc import StatusCode
from hpack import Decoder, HPACKError, OversizedHeaderListError

from services.kit.http2.frames import ConnectionFailure, ErrorCode, StreamFailure

METADATA_BYTES_MAX: Final = 16 * 1024
# Beyond METADATA_BYTES_MAX a call is refused; beyond this the connection ends, be it what a block
# has or what it says.
HEADERS_BYTES_MAX: Final = 2 * METADATA_BYTES_MAX
CONTENT_LENGTH_DIGITS_MAX: Final = 18
FIELD_BYTES_OVERHEAD: Final = 32  # RFC 9113, section 10.5.1
REMEMBERED_MAX: Final = 512
REMEMBERED_BYTES_MAX: Final = 1_024

Fields: TypeAlias = Sequence[tuple[bytes, bytes]]
Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[^\0\r\n \t](?:[^\0\r\n]*[^\0\r\n \t])?)?")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_SECONDS = {b"H": 3_600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
# They belong to HTTP/1.1 (RFC 9113, section 8.2.2).
_FORBIDDEN = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"}
)
# Not for handlers, as with grpc.aio.
_PROTOCOL = frozenset(
    {
        b"content-type",
        b"content-length",
        b"te",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"host",
    }
)
# Of gRPC's own services.
_OF_GRPC: Final = "/grpc."
# What messages may be packed with.
ENCODINGS: Final = ("identity", "deflate", "gzip")
_METADATA_NAME = re.compile(r"[0-9a-z_.\-]+")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")
_STATUS_200: Final = b"\x88"  # of the static table
# "We keep no table either", as a client may ask for; before all that an answer says.
NO_TABLE: Final = b"\x20"


class RefusedError(Exception):
    """A call is answered with this status instead of being handled."""

    def __init__(self, code: StatusCode, details: str, http_status: int = 200) -> None:
        super().__init__(details)
        self.code = code
        self.details = details
        self.http_status = http_status


@dataclass(frozen=True, slots=True)
class RequestHead:
    """What a call begins with. `handler` is grpc's RpcMethodHandler."""

    method: str
    handler: Any
    metadata: tuple[tuple[str, str | bytes], ...]
    timeout_s: float | None
    encoding: str
    content_length: int | None
    refusal: RefusedError | None
    # Whether it may last for ever, and anybody may begin it.
    watch: bool


class Heads:
    """Reads what calls begin with; knows methods by `find`. One for all connections of a server."""

    def __init__(self, find: Callable[[str], Any]) -> None:
        self._find = find
        # Blocks that depend on nothing.
        self._remembered: dict[bytes, RequestHead] = {}

    def recall(self, block: bytes) -> RequestHead | None:
        """What was remembered of the same block."""
        return self._remembered.get(block)

    def remember(self, block: bytes, head: RequestHead) -> None:
        """Of a block that depends on nothing."""
        if len(block) > REMEMBERED_BYTES_MAX:
            return
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[block] = head

    def read(self, fields: Fields) -> RequestHead:
        """StreamFailure for what is no request of HTTP/2; what is none of gRPC has a refusal."""
        pseudo, own, others = _sorted(fields)
        if not pseudo.get(b":path") or b":method" not in pseudo or b":scheme" not in pseudo:
            raise _malformed()
        length = own.get(b"content-length")
        if length is not None and not (
            length.isdigit() and len(length) <= CONTENT_LENGTH_DIGITS_MAX
        ):
            raise _malformed()
        method = pseudo[b":path"].decode("latin-1")
        handler, timeout_s, encoding, refusal = None, None, ENCODINGS[0], None
        metadata: tuple[tuple[str, str | bytes], ...] = ()
        try:
            encoding = _encoding(fields, pseudo, own)
            timeout_s = _timeout_s(own.get(b"grpc-timeout"))
            metadata = tuple(each for name, value in others for each in _decoded(name, value))
            handler = self._find(method)
            if handler is None:
                raise RefusedError(StatusCode.UNIMPLEMENTED, "Method not found!")
        except RefusedError as error:
            # Nobody raises it again, and what stood around it need not be kept.
            refusal = error.with_traceback(None)
        return RequestHead(
            method=method,
            handler=handler,
            metadata=metadata,
            timeout_s=timeout_s,
            encoding=encoding,
            content_length=None if length is None else int(length),
            refusal=refusal,
            watch=handler is not None
            and handler.response_streaming
            and method.startswith(_OF_GRPC),
        )


class HeaderDecoder:
    """The state of one connection's header blocks."""

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEADERS_BYTES_MAX)
        # Whether the client has acknowledged that there is no table.
        self.stateless = False

    def without_table(self) -> None:
        """The client has acknowledged so."""
        self._decoder.header_table_size = 0
        self._decoder.max_allowed_table_size = 0
        self.stateless = True

    def decode(self, block: bytes) -> Fields:
        """ConnectionFailure: what follows could not be read either."""
        try:
            return list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "too many headers") from error
        except HPACKError as error:
            failure = ConnectionFailure(ErrorCode.COMPRESSION_ERROR, "headers can't be read")
            raise failure from error


def check_trailers(fields: Fields) -> None:
    """StreamFailure when they are none; what they say is nothing to gRPC."""
    pseudo, _, _ = _sorted(fields)
    if pseudo:
        raise _malformed()


def _malformed() -> StreamFailure:
    return StreamFailure(ErrorCode.PROTOCOL_ERROR)


def _sorted(fields: Fields) -> tuple[dict[bytes, bytes], dict[bytes, bytes], Fields]:
    """Pseudo-headers, those of the protocol, others; StreamFailure (RFC 9113, section 8.2)."""
    pseudo: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    others: list[tuple[bytes, bytes]] = []
    for name, given in fields:
        known = name in _PSEUDO or name in _PROTOCOL
        # Of metadata, gRPC's own clients send spaces around a value too, and gRPC lets them go.
        value = given if known else given.strip(b" \t")
        if not _VALUE.fullmatch(value):
            raise _malformed()
        if name in _PSEUDO:
            if own or others or name in pseudo:
                raise _malformed()
            pseudo[name] = value
        elif not _NAME.fullmatch(name) or name in _FORBIDDEN:
            raise _malformed()
        elif name in _PROTOCOL:
            if own.setdefault(name, value) != value or (name == b"te" and value != b"trailers"):
                raise _malformed()
        else:
            others.append((name, value))
    return pseudo, own, others


def _encoding(fields: Fields, pseudo: dict[bytes, bytes], own: dict[bytes, bytes]) -> str:
    """Of the messages of a request that is gRPC; RefusedError when it is not."""
    content_type = own.get(b"content-type", b"").lower()
    if pseudo[b":method"] != b"POST":
        raise RefusedError(StatusCode.INTERNAL, "gRPC calls are POST", 405)
    # "application/grpc+proto" is gRPC, "application/grpc-web" is not.
    if not content_type.startswith(b"application/grpc") or content_type[16:17] not in b"+;":
        raise RefusedError(StatusCode.INVALID_ARGUMENT, "The content type is not gRPC's", 415)
    encoding = own.get(b"grpc-encoding", b"identity").decode("latin-1")
    if encoding not in ENCODINGS:
        raise RefusedError(
            StatusCode.UNIMPLEMENTED, f"Messages packed with {encoding} are not read"
        )
    size = sum(len(name) + len(value) + FIELD_BYTES_OVERHEAD for name, value in fields)
    if size > METADATA_BYTES_MAX:
        raise RefusedError(
            StatusCode.RESOURCE_EXHAUSTED,
            f"The metadata has {size} bytes, more than {METADATA_BYTES_MAX}",
        )
    return encoding


def _timeout_s(text: bytes | None) -> float | None:
    if text is None:
        return None
    if (match := _TIMEOUT.fullmatch(text)) is None:
        raise RefusedError(StatusCode.INTERNAL, "grpc-timeout is malformed")
    return int(match[1]) * _SECONDS[match[2]]


def _decoded(name: bytes, value: bytes) -> Iterable[tuple[str, str | bytes]]:
    """Metadata as handlers get it; of a binary one several values may stand in one field."""
    text = name.decode("ascii")
    if not text.endswith("-bin"):
        return [(text, value.decode("latin-1"))]
    try:
        parts = [part.strip().rstrip(b"=") for part in value.split(b",")]
        return [
            (text, base64.b64decode(part + b"=" * (-len(part) % 4), validate=True))
            for part in parts
        ]
    except binascii.Error as error:
        raise RefusedError(StatusCode.INTERNAL, f"{text} is not base64") from error


def header_block(fields: Metadata) -> bytes:
    """Literals that no table keeps; binary values in base64, others without spaces around them.
    ValueError: not allowed in gRPC.
    """
    block = bytearray()
    for name, value in fields:
        if not _METADATA_NAME.fullmatch(name):
            raise ValueError(f"not a name for metadata: {name!r}")
        if name.endswith("-bin"):
            raw = value.encode() if isinstance(value, str) else bytes(value)
            encoded = base64.b64encode(raw).rstrip(b"=")
        else:
            text = value if isinstance(value, str) else bytes(value).decode("latin-1")
            if not _METADATA_VALUE.fullmatch(text):
                raise ValueError(f"not a value for metadata: {name}")
            encoded = text.strip(" ").encode()
        append_literal(block, name.encode(), encoded)
    return bytes(block)


def append_literal(block: bytearray, name: bytes, value: bytes) -> None:
    """A field that no table keeps."""
    block.append(0)
    for text in (name, value):
        size = len(text)
        if size < 127:
            block.append(size)
        else:
            block.append(127)
            size -= 127
            while size >= 128:
                block.append(size & 127 | 128)
                size >>= 7
            block.append(size)
        block += text


_GRPC = header_block(
    [("content-type", "application/grpc"), ("grpc-accept-encoding", ",".join(ENCODINGS))]
)
# Of every answer that has any messages.
OPENING: Final = NO_TABLE + _STATUS_200 + _GRPC


def trailers(code: StatusCode, details: str, metadata: bytes = b"") -> bytes:
    """How a call ends; `metadata` as header_block() gives it."""
    block = bytearray(header_block([("grpc-status", str(code.value[0]))]))
    if details:
        append_literal(block, b"grpc-message", _percent_encoded(details))
    return bytes(block) + metadata


TRAILERS_OK: Final = trailers(StatusCode.OK, "")


def only_trailers(http_status: int, end: bytes) -> bytes:
    """An answer without messages, which is one block; `end` as trailers() gives it."""
    if http_status == 200:
        return OPENING + end
    block = bytearray(NO_TABLE)
    append_literal(block, b":status", str(http_status).encode())
    return bytes(block) + _GRPC + end


def _percent_encoded(text: str) -> bytes:
    """As gRPC over HTTP/2 wants grpc-message; no field may begin or end with a space."""
    encoded = "".join(
        chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}"
        for byte in text.encode("utf-8", "replace")
    )
    if encoded.startswith(" "):
        encoded = "%20" + encoded[1:]
    if encoded.endswith(" "):
        encoded = encoded[:-1] + "%20"
    return encoded.encode()
