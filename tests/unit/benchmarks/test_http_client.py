import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.generators.http_client import HEAD_BYTES_MAX, response_body, response_end

RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"


def test_the_end_is_known_once_the_head_is_there() -> None:
    head_end = RESPONSE.index(b"\r\n\r\n") + 4
    assert {response_end(RESPONSE[:size]) for size in range(head_end)} == {0}
    assert response_end(RESPONSE[:head_end]) == len(RESPONSE)
    assert response_end(RESPONSE) == len(RESPONSE)


def test_the_last_header_and_any_case_are_read() -> None:
    assert response_end(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n") == 46


def test_a_content_length_in_the_body_is_no_header() -> None:
    with pytest.raises(BenchmarkError, match="without Content-Length"):
        response_end(b"HTTP/1.1 200 OK\r\nserver: x\r\n\r\ncontent-length: 3\r\n")


def test_an_endless_head_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="no response"):
        response_end(b"x" * (HEAD_BYTES_MAX + 1))


def test_the_body_is_what_follows_the_head() -> None:
    assert response_body(RESPONSE) == b"hello"
