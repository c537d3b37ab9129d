"""What every answer has: statuses and bodies of errors, request ids, bounded bodies."""

from collections.abc import Iterable

import msgspec
import pytest

from gateway.api import routing_path
from gateway.errors import HttpError, to_http
from gateway.nearest import unknown
from gateway.wire import (
    Disconnected,
    Message,
    Receive,
    RequestIds,
    is_json,
    is_ndjson,
    read_body,
)
from services.kit import errors
from services.kit.errors import DomainError, FieldProblem


def receiving(messages: Iterable[Message]) -> Receive:
    """An ASGI receive that gives `messages` and must not be called more often."""
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return receive


def chunk(body: bytes, more: bool = False) -> Message:
    """One part of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.InvalidArgumentError([FieldProblem("a", "b")]), 400, "invalid_argument"),
        (errors.UnauthenticatedError("m"), 401, "unauthenticated"),
        (errors.PermissionDeniedError("m"), 403, "permission_denied"),
        (errors.NotFoundError("m"), 404, "not_found"),
        (errors.ConflictError("m"), 409, "conflict"),
        (errors.PreconditionError("m", reason="invoice_void"), 409, "invoice_void"),
        (errors.OverloadedError("m"), 429, "overloaded"),
        (errors.UnavailableError("m"), 503, "unavailable"),
        (errors.UnexpectedError("m"), 500, "internal"),
        (RuntimeError("m"), 500, "internal"),
    ],
)
def test_each_error_has_its_status(error: Exception, status: int, code: str) -> None:
    answer = to_http(error)
    assert (answer.status, answer.code) == (status, code)


def test_an_error_body_is_the_contracts() -> None:
    error = errors.InvalidArgumentError([FieldProblem("amount", "must be at least 0")])
    assert msgspec.json.decode(to_http(error).body("req_1")) == {
        "error": "amount: must be at least 0",
        "code": "invalid_argument",
        "details": [{"field": "amount", "message": "must be at least 0"}],
        "requestId": "req_1",
    }


@pytest.mark.parametrize(
    "error",
    [errors.UnavailableError("ipv4:10.0.0.1:5432 refused"), errors.UnexpectedError("a secret")],
)
def test_nothing_internal_shows_in_an_error(error: DomainError) -> None:
    assert error.message not in to_http(error).body("req_1").decode()


@pytest.mark.parametrize(("given", "sent"), [(None, "1"), (0.2, "1"), (1.0, "1"), (2.1, "3")])
def test_when_to_try_again_is_told_in_whole_seconds(given: float | None, sent: str) -> None:
    for error in (
        errors.UnavailableError("m", retry_after_s=given),
        errors.OverloadedError("m", retry_after_s=given),
    ):
        assert to_http(error).headers == {"retry-after": sent}


async def test_a_body_is_joined_from_its_parts() -> None:
    receive = receiving([chunk(b"ab", more=True), chunk(b"", more=True), chunk(b"cd")])
    assert await read_body({}, receive, 4) == b"abcd"


@pytest.mark.parametrize(
    ("headers", "messages"),
    [
        ({b"content-length": b"5"}, []),
        ({}, [chunk(b"abcde")]),
        ({}, [chunk(b"abcde", more=True)]),
        ({}, [chunk(b"abc", more=True), chunk(b"de", more=True)]),
        ({}, [chunk(b"abc", more=True), chunk(b"de")]),
    ],
)
async def test_a_body_over_its_limit_is_not_read_to_its_end(
    headers: dict[bytes, bytes], messages: list[Message]
) -> None:
    with pytest.raises(HttpError) as caught:
        await read_body(headers, receiving(messages), 4)
    assert (caught.value.status, caught.value.code) == (413, "body_too_large")


@pytest.mark.parametrize("before", [[], [chunk(b"a", more=True)]])
async def test_a_client_that_goes_away_is_not_answered(before: list[Message]) -> None:
    with pytest.raises(Disconnected):
        await read_body({}, receiving([*before, {"type": "http.disconnect"}]), 4)


@pytest.mark.parametrize("given", [b"a", b"req-1_2.3:4", b"x" * 64])
def test_a_sane_request_id_is_kept(given: bytes) -> None:
    assert RequestIds().take(given) == given.decode()


@pytest.mark.parametrize("given", [None, b"", b"a b", b"x" * 65, b"\xe9", b"a\n", b'"'])
def test_any_other_request_id_is_replaced_by_a_new_one(given: bytes | None) -> None:
    ids = RequestIds()
    taken = [ids.take(given) for _ in range(3)] + [RequestIds().take(given)]
    assert len(set(taken)) == 4
    assert all(one.startswith("req_") for one in taken)


@pytest.mark.parametrize(
    ("content_type", "json", "ndjson"),
    [
        (b"application/json", True, False),
        (b"Application/JSON; Charset=UTF-8", True, False),
        (b'application/json;charset="utf-8"', True, False),
        (b"application/json; charset=latin-1", False, False),
        (b"application/x-ndjson", False, True),
        (b"application/x-ndjson; charset=utf-8", False, True),
        (b"application/x-www-form-urlencoded", False, False),
        (b"application/jsonp", False, False),
        (b"text/plain", False, False),
        (b"", False, False),
        (None, False, False),
    ],
)
def test_content_types_are_told_apart(content_type: bytes, json: bool, ndjson: bool) -> None:
    assert (is_json(content_type), is_ndjson(content_type)) == (json, ndjson)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/api/metrics", "/api/metrics"),
        (b"/api/%6detrics", "/api/metrics"),
        (b"/api/customers/a%2fb", "/api/customers/a%2Fb"),
        (b"/api/customers/a@b%20c", "/api/customers/a%40b%20c"),
        (b"/api/customers/%C3%A9", "/api/customers/%C3%A9"),
    ],
)
def test_a_path_is_spelt_in_one_way_and_keeps_slashes_in_ids(raw: bytes, path: str) -> None:
    assert routing_path(raw) == path


def test_a_path_that_is_not_utf8_leads_nowhere() -> None:
    with pytest.raises(HttpError) as caught:
        routing_path(b"/api/customers/%ff")
    assert caught.value.status == 404


def test_an_endless_unknown_name_is_compared_quickly() -> None:
    assert unknown("x" * 4_000_000, ["customerId"]).startswith("unknown field; known: customerId")
