"""POST /api/track/batch: many events, each with a result of its own."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec
from prometheus_client import Counter as Metric
from usageflow.ingest.v1 import ingest_pb2

from gateway import query, strict_json
from gateway.access import authenticate
from gateway.coalescer import Coalescer
from gateway.errors import unavailable, unsupported_media_type
from gateway.event import KEY_HEADER, read_batched
from gateway.nearest import unknown
from gateway.strict_json import JsonError
from gateway.track import event_error, now_micros
from gateway.wire import (
    Disconnected,
    Receive,
    RequestIds,
    Scope,
    Send,
    is_json,
    is_ndjson,
    read_body,
    send_error,
    send_json,
)
from services.kit.auth import KeyCache, Principal
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.events import METADATA_KEYS_MAX

BODY_BYTES_MAX: Final = 4 * 1024 * 1024
EVENTS_MAX: Final = 1_000
LINES_MAX: Final = 10_000
# Fields and metadata of every event at their limits.
VALUES_MAX: Final = EVENTS_MAX * (6 + METADATA_KEYS_MAX)
# Other requests get their turn after this many events: about 2 ms.
EVENTS_READ_AT_ONCE: Final = 500
_EXPECTED_TYPE: Final = "application/json or application/x-ndjson"
_ANSWERS = Metric("usageflow_gateway_batch_answers", "Answers of POST /api/track/batch", ["status"])


class _Batch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    events: list[msgspec.Raw]


_Status = Literal["ACCEPTED", "DUPLICATE", "CONFLICT", "REJECTED"]


class EventResult(msgspec.Struct, rename="camel", gc=False):
    """What became of one event of a batch."""

    index: int
    status: _Status
    event_id: str | None = None
    error: str | None = None


class BatchAnswer(msgspec.Struct):
    """What became of all events of a batch."""

    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    results: list[EventResult]


# Possessive, and an unclosed string ends with the text: one pass, whatever the input.
_strings = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?', re.DOTALL)
_decode_batch = msgspec.json.Decoder(_Batch).decode
_encode_answer = msgspec.json.Encoder().encode
_STATUS_NAMES: Final[dict[int, _Status]] = {
    ingest_pb2.RECEIPT_STATUS_ACCEPTED: "ACCEPTED",
    ingest_pb2.RECEIPT_STATUS_DUPLICATE: "DUPLICATE",
    ingest_pb2.RECEIPT_STATUS_CONFLICT: "CONFLICT",
    ingest_pb2.RECEIPT_STATUS_REJECTED: "REJECTED",
}


class TrackBatch:
    """The ASGI handler of POST /api/track/batch."""

    def __init__(
        self,
        keys: KeyCache,
        coalescer: Coalescer,
        request_ids: RequestIds,
        requests_in_flight_max: int,
    ) -> None:
        self._keys = keys
        self._coalescer = coalescer
        self._request_ids = request_ids
        self._requests_in_flight_max = requests_in_flight_max
        self._requests_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = dict(scope["headers"])
        request_id = self._request_ids.take(headers.get(b"x-request-id"))
        self._requests_in_flight += 1
        try:
            if self._requests_in_flight > self._requests_in_flight_max:
                raise unavailable("Too many batches are being stored; try again")
            answer = await self._record(scope, headers, receive)
            _ANSWERS.labels("200").inc()
            await send_json(send, 200, answer, request_id)
        except Disconnected:
            _ANSWERS.labels("disconnected").inc()
        except Exception as error:
            refusal = event_error(error)
            _ANSWERS.labels(str(refusal.status)).inc()
            await send_error(send, refusal, request_id)
        finally:
            self._requests_in_flight -= 1

    async def _record(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        principal = await authenticate(self._keys, headers, "track")
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
        texts = split_lines(body) if lines else split_array(body)
        return await self._record_texts(principal, texts, len(body))

    async def _record_texts(
        self, principal: Principal, texts: Sequence[bytes | msgspec.Raw], size: int
    ) -> bytes:
        results: list[EventResult] = []
        events: list[ingest_pb2.EventInput] = []
        sent: list[EventResult] = []
        at = now_micros()
        for chunk in _chunks(texts):
            for text in chunk:
                result = EventResult(len(results), "REJECTED")
                results.append(result)
                try:
                    events.append(read_batched(bytes(text), at))
                    sent.append(result)
                except InvalidArgumentError as error:
                    result.error = error.message
            await asyncio.sleep(0)
        receipts = await self._coalescer.record_all(principal, events, size)
        for result, receipt in zip(sent, receipts, strict=True):
            _fill(result, receipt)
        return _encode_answer(_answer(results))


def split_array(body: bytes) -> Sequence[msgspec.Raw]:
    """The texts of {"events": [..]}; InvalidArgumentError when it is no such thing."""
    _require_few_values(body)
    try:
        texts = _decode_batch(body).events
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _array_problems(body) from None
    # More quotes than the events and the one name explain: a name was given twice.
    if body.count(b'"') != 2 + sum(bytes(text).count(b'"') for text in texts):
        raise _array_problems(body)
    if not 1 <= len(texts) <= EVENTS_MAX:
        raise _wrong_count()
    return texts


def _require_few_values(body: bytes) -> None:
    """Refuse four million zeros before they become four million objects."""
    if body.count(b",") >= VALUES_MAX and _strings.sub(b"", body).count(b",") >= VALUES_MAX:
        raise _wrong_count()


def _wrong_count() -> InvalidArgumentError:
    message = f"must have from 1 to {EVENTS_MAX} events; as NDJSON up to {LINES_MAX}"
    return InvalidArgumentError([FieldProblem("events", message)])


def split_lines(body: bytes) -> Sequence[bytes]:
    """The lines of NDJSON that are not blank; InvalidArgumentError when too many or none."""
    parts = body.split(b"\n", LINES_MAX * 2)
    lines = [line for line in parts if line and not line.isspace()]
    if not 1 <= len(lines) <= LINES_MAX or len(parts) > LINES_MAX * 2:
        message = f"must have from 1 to {LINES_MAX} lines"
        raise InvalidArgumentError([FieldProblem("body", message)])
    return lines


def _chunks(texts: Sequence[bytes | msgspec.Raw]) -> Iterator[Sequence[bytes | msgspec.Raw]]:
    for start in range(0, len(texts), EVENTS_READ_AT_ONCE):
        yield texts[start : start + EVENTS_READ_AT_ONCE]


def _array_problems(body: bytes) -> InvalidArgumentError:
    try:
        value = strict_json.decode(body)
    except JsonError as error:
        return InvalidArgumentError([FieldProblem("body", str(error))])
    if not isinstance(value, dict):
        message = 'must be a JSON object such as {"events": [..]}'
        return InvalidArgumentError([FieldProblem("body", message)])
    known = ("events",)
    problems = [FieldProblem(name, unknown(name, known)) for name in value if name not in known]
    if not isinstance(value.get("events"), list):
        missing = "events" not in value
        problems.append(FieldProblem("events", "is required" if missing else "must be an array"))
    return InvalidArgumentError(problems)


def _fill(result: EventResult, receipt: ingest_pb2.EventReceipt) -> None:
    result.status = _STATUS_NAMES[receipt.status]
    result.event_id = receipt.event_id or None
    if receipt.status == ingest_pb2.RECEIPT_STATUS_CONFLICT:
        result.error = (
            "idempotencyKey: was used for an event with other content; nothing was stored"
        )
    elif receipt.errors:
        result.error = "; ".join(f"{error.field}: {error.message}" for error in receipt.errors)


def _answer(results: list[EventResult]) -> BatchAnswer:
    counts = Counter(result.status for result in results)
    return BatchAnswer(
        accepted=counts["ACCEPTED"],
        duplicates=counts["DUPLICATE"],
        conflicts=counts["CONFLICT"],
        rejected=counts["REJECTED"],
        results=results,
    )
