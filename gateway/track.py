"""POST /api/track: one event. The hot path: bare ASGI, no framework."""

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from prometheus_client import Counter
from usageflow.ingest.v1 import ingest_pb2

from gateway import query
from gateway.access import Access
from gateway.coalescer import Coalescer
from gateway.errors import HttpError, to_http, unavailable, unsupported_media_type
from gateway.event import KEY_HEADER, read_tracked
from gateway.rates import Caller
from gateway.wire import (
    Disconnected,
    Receive,
    RequestIds,
    Scope,
    Send,
    is_json,
    read_body,
    send_json,
)
from services.kit import clock
from services.kit.errors import (
    FieldProblem,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
)
from services.kit.events import MICROS_PER_SECOND, window

BODY_BYTES_MAX: Final = 256 * 1024
NOT_STORED: Final = (
    "The event could not be stored; try again, with the same Idempotency-Key nothing is doubled"
)
_REPLAYED: Final = {"idempotent-replayed": "true"}
ANSWERS = Counter("usageflow_gateway_track_answers", "Answers of POST /api/track", ["status"])
_accepted, _replayed = ANSWERS.labels("200"), ANSWERS.labels("200_replayed")
_refused = ANSWERS.labels("503")
_clock_offset_micros: Final = int(clock.offset().total_seconds()) * MICROS_PER_SECOND


def now_micros() -> int:
    """kit's clock in microseconds since 1970, without making a datetime."""
    return time.time_ns() // 1_000 + _clock_offset_micros


class Track:
    """The ASGI handler of POST /api/track."""

    def __init__(self, access: Access, coalescer: Coalescer, request_ids: RequestIds) -> None:
        self._access = access
        self._coalescer = coalescer
        self._request_ids = request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        request_id = self._request_ids.take(headers.get(b"x-request-id"))
        caller: Caller | None = None
        try:
            caller = await self._access.tracker(scope, headers)
            outcome = answer_of(*await self._record(caller, scope, headers, receive))
        except Disconnected:
            ANSWERS.labels("disconnected").inc()
            return
        except Exception as error:
            outcome = answer_of(error)
        told = outcome.headers if caller is None else {**outcome.headers, **caller.head_of_event()}
        more = [(name.encode(), value.encode()) for name, value in told.items()]
        await send_json(send, outcome.status, outcome.body(request_id), request_id, more)

    async def _record(
        self, caller: Caller, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[ingest_pb2.EventReceipt, str]:
        if (beyond := caller.take_one()) is not None:
            raise beyond
        principal = caller.principal
        if scope["query_string"]:
            query.read(scope["query_string"], query.Nothing)
        if not is_json(headers.get(b"content-type")):
            raise unsupported_media_type("application/json")
        body = await read_body(headers, receive, BODY_BYTES_MAX)
        key = headers.get(b"idempotency-key")
        if key is not None:
            _require_one_key(scope)
        times = window(principal.test_clocks, now_micros(), principal.event_past_micros)
        event = read_tracked(body, None if key is None else unquoted(key), *times)
        return await self._coalescer.record(principal, event, len(body))


class Stored:
    """The answer 200; `headers` say whether the event was there before, and carry the token."""

    status: Final = 200
    __slots__ = ("_event_id", "_replayed", "_usage_token")

    def __init__(self, event_id: str, usage_token: str, *, replayed: bool) -> None:
        self._event_id = event_id
        self._usage_token = usage_token
        self._replayed = replayed

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers besides those that every answer has."""
        token = {"usage-token": self._usage_token} if self._usage_token else {}
        return _REPLAYED | token if self._replayed else token

    def body(self, _request_id: str) -> bytes:
        """JSON. An event id is "evt_" and hexadecimal digits: nothing in it needs escaping."""
        return b'{"success":true,"eventId":"%b"}' % self._event_id.encode()


def answer_of(
    outcome: ingest_pb2.EventReceipt | Exception, usage_token: str = ""
) -> Stored | HttpError:
    """What a receipt, or an error in place of one, becomes; counts it."""
    if isinstance(outcome, ingest_pb2.EventReceipt):
        if outcome.status == ingest_pb2.RECEIPT_STATUS_ACCEPTED:
            _accepted.inc()
            return Stored(outcome.event_id, usage_token, replayed=False)
        if outcome.status == ingest_pb2.RECEIPT_STATUS_DUPLICATE:
            _replayed.inc()
            return Stored(outcome.event_id, usage_token, replayed=True)
        outcome = _refusal(outcome)
    return counted(event_error(outcome))


def counted(error: HttpError) -> HttpError:
    """The answer to an event that was refused; counts it."""
    ANSWERS.labels(str(error.status)).inc()
    return error


def event_error(error: Exception) -> HttpError:
    """The answer that an error on the way of an event becomes."""
    if isinstance(error, OverloadedError | UnavailableError):
        return unavailable(NOT_STORED, error.retry_after_s)
    return to_http(error)


def refused(retry_after_s: float | None) -> HttpError:
    """The answer to an event that could not even be queued; counts it."""
    _refused.inc()
    return _refusal_after(retry_after_s)


@lru_cache(maxsize=64)
def _refusal_after(retry_after_s: float | None) -> HttpError:
    return unavailable(NOT_STORED, retry_after_s)


def unquoted(key: bytes) -> str:
    """The key, which may be sent bare or as a quoted string (RFC 9651, 3.3.3)."""
    text = key.decode("latin-1")
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] == '"' else text


def _require_one_key(scope: Scope) -> None:
    count = 0
    for name, _value in scope["headers"]:
        count += name == b"idempotency-key"
    if count > 1:
        raise InvalidArgumentError([FieldProblem(KEY_HEADER, "must be sent once")])


def _refusal(receipt: ingest_pb2.EventReceipt) -> Exception:
    problems = [FieldProblem(error.field, error.message) for error in receipt.errors]
    if receipt.status == ingest_pb2.RECEIPT_STATUS_CONFLICT:
        return HttpError(
            409,
            "idempotency_conflict",
            "This Idempotency-Key was used for an event with other content; nothing was stored",
            problems,
        )
    if receipt.status == ingest_pb2.RECEIPT_STATUS_REJECTED:
        return InvalidArgumentError(problems)
    return UnavailableError("no receipt")
