"""POST /api/track/batch: many events, each with a result of its own."""

from typing import Final

from prometheus_client import Counter

from gateway import query
from gateway.access import Access
from gateway.batch_answer import answer
from gateway.batch_body import BODY_BYTES_MAX, read_batch
from gateway.coalescer import Coalescer
from gateway.errors import unavailable, unsupported_media_type
from gateway.event import KEY_HEADER
from gateway.rates import Caller
from gateway.track import event_error, now_micros
from gateway.wire import (
    Disconnected,
    Header,
    Receive,
    RequestIds,
    Scope,
    Send,
    is_json,
    is_ndjson,
    read_body,
    send_error,
    send_json,
    usage_token_header,
)
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import window

_EXPECTED_TYPE: Final = "application/json or application/x-ndjson"
_ANSWERS = Counter(
    "usageflow_gateway_batch_answers", "Answers of POST /api/track/batch", ["status"]
)


class TrackBatch:
    """The ASGI handler of POST /api/track/batch."""

    def __init__(
        self,
        access: Access,
        coalescer: Coalescer,
        request_ids: RequestIds,
        requests_in_flight_max: int,
    ) -> None:
        self._access = access
        self._coalescer = coalescer
        self._request_ids = request_ids
        self._requests_in_flight_max = requests_in_flight_max
        self._requests_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        request_id = self._request_ids.take(headers.get(b"x-request-id"))
        self._requests_in_flight += 1
        caller: Caller | None = None
        try:
            if self._requests_in_flight > self._requests_in_flight_max:
                raise unavailable("Too many batches are being stored; try again")
            if (overload := self._coalescer.refusal()) is not None:
                raise overload
            caller = await self._access.tracker(scope, headers)
            body, token = await self._record(caller, scope, headers, receive)
            _ANSWERS.labels("200").inc()
            await send_json(send, 200, body, request_id, [*token, *_limits(caller)])
        except Disconnected:
            _ANSWERS.labels("disconnected").inc()
        except Exception as error:
            refusal = event_error(error)
            _ANSWERS.labels(str(refusal.status)).inc()
            await send_error(send, refusal, request_id, _limits(caller))
        finally:
            self._requests_in_flight -= 1

    async def _record(
        self, caller: Caller, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[bytes, list[Header]]:
        # Its events are counted when they are read; while there are none left it is not read.
        if (beyond := caller.take_events(0)) is not None:
            raise beyond
        principal = caller.principal
        if scope["query_string"]:
            query.read(scope["query_string"], query.Nothing)
        content_type = headers.get(b"content-type")
        lines = is_ndjson(content_type)
        if not lines and not is_json(content_type):
            raise unsupported_media_type(_EXPECTED_TYPE)
        if b"idempotency-key" in headers:
            message = "a batch has none: give each event its own idempotencyKey"
            raise InvalidArgumentError([FieldProblem(KEY_HEADER, message)])
        body = await read_body(headers, receive, BODY_BYTES_MAX)
        read = await read_batch(
            body,
            *window(principal.test_clocks, now_micros(), principal.event_past_micros),
            self._coalescer.part_events_max,
            lines=lines,
        )
        if (beyond := caller.take_events(read.total, requests=0)) is not None:
            raise beyond
        receipts, token = await self._coalescer.record_all(principal, read.parts)
        return answer(read.total, read.refused, receipts), usage_token_header(token)


def _limits(caller: Caller | None) -> list[Header]:
    if caller is None:
        return []
    return [(name.encode(), value.encode()) for name, value in caller.head().items()]
