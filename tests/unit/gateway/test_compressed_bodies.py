"""A compressed body is inflated within the limits of a plain one."""

import gzip
import resource
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import HttpError
from gateway.inflate import MEMBERS_MAX, Inflater, is_gzip
from services.kit.errors import InvalidArgumentError

LIMIT = 10_000


def inflate(body: bytes, *, piece_bytes: int = 7, limit: int = LIMIT) -> bytes:
    """The body, fed in small pieces."""
    inflater = Inflater(limit)
    for start in range(0, len(body), piece_bytes):
        inflater.feed(body[start : start + piece_bytes])
    return inflater.finish()


@given(st.binary(max_size=LIMIT), st.integers(1, 5_000))
def test_any_body_is_inflated_however_it_is_cut(body: bytes, piece_bytes: int) -> None:
    assert inflate(gzip.compress(body), piece_bytes=piece_bytes) == body


@pytest.mark.parametrize("piece_bytes", [1, 1_000])
def test_several_members_are_one_body(piece_bytes: int) -> None:
    body = gzip.compress(b"first ") + gzip.compress(b"") + gzip.compress(b"last")
    assert inflate(body, piece_bytes=piece_bytes) == b"first last"


def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert len(inflate(gzip.compress(bytes(LIMIT)))) == LIMIT
    for body in (
        gzip.compress(bytes(LIMIT + 1)),
        gzip.compress(bytes(LIMIT)) + gzip.compress(b"1"),
    ):
        with pytest.raises(HttpError) as refused:
            inflate(body)
        assert refused.value.status == 413


def test_a_bomb_takes_no_more_memory_than_the_limit() -> None:
    bomb = gzip.compress(bytes(512 * 1024 * 1024))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    inflater = Inflater(LIMIT)
    with pytest.raises(HttpError):
        inflater.feed(bomb)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 8 * 1024


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"{}",
        zlib.compress(b"{}"),
        gzip.compress(b"{}", mtime=0)[:-1],
        gzip.compress(b"{}", mtime=0)[:5],
        gzip.compress(b"{}", mtime=0) + b"garbage",
        gzip.compress(b"{}", mtime=0) + b"\0",
        gzip.compress(b"{}", mtime=0) + gzip.compress(b"{}", mtime=0)[:-1],
        gzip.compress(b"{}", mtime=0)[:-8] + bytes(8),
        gzip.compress(b"", mtime=0) * (MEMBERS_MAX + 1),
    ],
)
@pytest.mark.parametrize("piece_bytes", [1, 100_000])
def test_broken_gzip_is_refused(body: bytes, piece_bytes: int) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        inflate(body, piece_bytes=piece_bytes)
    assert [problem.field for problem in refused.value.problems] == ["body"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [(None, False), (b"", False), (b"identity", False), (b"gzip", True), (b"GZIP ", True)],
)
def test_the_header_says_whether_a_body_is_compressed(header: bytes | None, expected: bool) -> None:
    assert is_gzip(header) is expected


@pytest.mark.parametrize(
    "header", [b"br", b"deflate", b"zstd", b"gzip, gzip", b"compress", b"\xff"]
)
def test_another_encoding_is_refused_with_what_is_allowed(header: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        is_gzip(header)
    assert (refused.value.status, refused.value.headers["accept-encoding"]) == (415, "gzip")
