"""Events of all requests on their way to ingest, many in one call.

While a call is in flight the next batch forms out of whatever arrives. When it is quiet an event
goes at once; when events waited during a call, the next call is preceded by a pause of two
milliseconds, so that those who were just answered can join: fewer, fuller calls cost all parts
less, which more than makes up for the pause (README.md has the figures).

Every event has an idempotency key on this way: one without gets a random key here, so that a call
may be repeated (kit's channels repeat it when ingest is away) without storing anything twice.
"""

import asyncio
import contextvars
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import structlog
from prometheus_client import Counter, Histogram
from usageflow.ingest.v1.ingest_pb2 import (
    EventInput,
    EventReceipt,
    RecordTenantEventsRequest,
    TenantEventInputs,
)

from services.kit.auth import Principal
from services.kit.errors import DomainError, OverloadedError, UnavailableError

log = structlog.get_logger()

# 192 random bits: no caller can guess it, and two never meet.
RANDOM_KEY_BYTES: Final = 24
EVENT_OVERHEAD_BYTES: Final = 64
_EVENTS = Counter("usageflow_gateway_events_sent", "Events sent to ingest", ["outcome"])
_CALL_EVENTS = Histogram(
    "usageflow_gateway_ingest_call_events",
    "Events in a call to ingest",
    buckets=(1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000),
)
_CALL_SECONDS = Histogram("usageflow_gateway_ingest_call_seconds", "Time of a call to ingest")

_Tenant: TypeAlias = tuple[str, int]
# Called once, with the receipt, or with the error that record() would raise.
OnReceipt: TypeAlias = Callable[[EventReceipt | DomainError], None]


class EventSink(Protocol):
    """Stores events."""

    async def record(
        self, request: RecordTenantEventsRequest, timeout_s: float
    ) -> Sequence[EventReceipt]:
        """A receipt for each event, in the order of the request; DomainError when it is unknown
        what became of them.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the coalescer."""

    calls_in_flight_max: int = 1
    events_per_call_max: int = 2_000
    bytes_per_call_max: int = 4 * 1024 * 1024
    events_waiting_max: int = 20_000
    bytes_waiting_max: int = 32 * 1024 * 1024
    call_s_max: float = 5.0
    answer_s_max: float = 10.0
    pause_s: float = 0.001


class _Done(asyncio.Future[None]):
    """What the requests of a batch wait for; one that is cancelled does not cancel the others."""

    def cancel(self, msg: object = None) -> bool:
        return False


class _Share:
    """One tenant's events in a batch; their receipts begin at `offset`."""

    __slots__ = ("events", "offset")

    def __init__(self) -> None:
        self.events: list[EventInput] = []
        self.offset = 0


class _Batch:
    __slots__ = (
        "bytes",
        "deadline_s",
        "done",
        "error",
        "events",
        "receipts",
        "shares",
        "submitted",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, deadline_s: float) -> None:
        self.shares: dict[_Tenant, _Share] = {}
        self.events = 0
        self.bytes = 0
        self.deadline_s = deadline_s
        self.done = _Done(loop=loop)
        self.receipts: Sequence[EventReceipt] = ()
        self.error: DomainError | None = None
        self.submitted: list[tuple[OnReceipt, _Share, int]] = []

    def finish(self) -> None:
        """Tell everybody who waits."""
        self.done.set_result(None)
        for on_receipt, share, index in self.submitted:
            try:
                on_receipt(
                    self.receipts[share.offset + index]
                    if self.error is None
                    else _unknown_outcome(self.error)
                )
            except Exception:
                log.exception("answer_failed")

    def share(self, tenant: _Tenant) -> _Share:
        share = self.shares.get(tenant)
        if share is None:
            share = self.shares[tenant] = _Share()
        return share

    def request(self) -> RecordTenantEventsRequest:
        request = RecordTenantEventsRequest()
        offset = 0
        for (organization_id, mode), share in self.shares.items():
            share.offset = offset
            offset += len(share.events)
            request.tenants.append(
                TenantEventInputs(
                    organization_id=organization_id,
                    mode=mode,  # type: ignore[arg-type]
                    events=share.events,
                )
            )
        return request


class Coalescer:
    """Joins events into calls; bounded in events and bytes that wait."""

    def __init__(self, sink: EventSink, limits: Limits) -> None:
        self._sink = sink
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._forming: deque[_Batch] = deque()
        self._events_waiting = 0
        self._bytes_waiting = 0
        self._calls_in_flight = 0
        self._senders: set[asyncio.Task[None]] = set()

    async def record(self, principal: Principal, event: EventInput, size: int) -> EventReceipt:
        """The event's receipt; `size` is about its length in bytes.

        OverloadedError: the queue is full and nothing was sent. UnavailableError: what became of
        it is unknown; the same key again is safe.
        """
        self._take_room(1, size)
        batch, share, index = self._join(principal, event, size)
        self._wake()
        await batch.done
        if batch.error is not None:
            raise _unknown_outcome(batch.error)
        return batch.receipts[share.offset + index]

    def submit(
        self, principal: Principal, event: EventInput, size: int, on_receipt: OnReceipt
    ) -> None:
        """As record(), for a caller without a task: `on_receipt` is called instead.

        OverloadedError is raised at once, and then it is never called.
        """
        self._take_room(1, size)
        batch, share, index = self._join(principal, event, size)
        batch.submitted.append((on_receipt, share, index))
        self._wake()

    async def record_all(
        self, principal: Principal, events: Sequence[EventInput], size: int
    ) -> list[EventReceipt]:
        """The receipts of many events, in order; either all are sent or none. Errors as above."""
        if not events:
            return []
        self._take_room(len(events), size)
        each = size // len(events)
        places = [self._join(principal, event, each) for event in events]
        self._wake()
        receipts = []
        for batch, share, index in places:
            if not batch.done.done():
                await batch.done
            if batch.error is not None:
                raise _unknown_outcome(batch.error)
            receipts.append(batch.receipts[share.offset + index])
        return receipts

    def _take_room(self, events: int, size: int) -> None:
        limits = self._limits
        size += events * EVENT_OVERHEAD_BYTES
        if (
            self._events_waiting + events > limits.events_waiting_max
            or self._bytes_waiting + size > limits.bytes_waiting_max
        ):
            _EVENTS.labels("overloaded").inc(events)
            raise OverloadedError("Too many events are waiting; try again", retry_after_s=1.0)

    def _join(
        self, principal: Principal, event: EventInput, size: int
    ) -> tuple[_Batch, _Share, int]:
        if not event.idempotency_key:
            event.idempotency_key = secrets.token_urlsafe(RANDOM_KEY_BYTES)
        size += EVENT_OVERHEAD_BYTES
        batch = self._batch_for(size)
        share = batch.share((principal.organization_id, principal.mode))
        index = len(share.events)
        share.events.append(event)
        batch.events += 1
        batch.bytes += size
        self._events_waiting += 1
        self._bytes_waiting += size
        return batch, share, index

    def _batch_for(self, size: int) -> _Batch:
        if self._forming:
            batch = self._forming[-1]
            if (
                batch.events < self._limits.events_per_call_max
                and batch.bytes + size <= self._limits.bytes_per_call_max
            ):
                return batch
        batch = _Batch(self._loop, self._loop.time() + self._limits.answer_s_max)
        self._forming.append(batch)
        return batch

    def _wake(self) -> None:
        if self._calls_in_flight < self._limits.calls_in_flight_max:
            self._calls_in_flight += 1
            # An empty context: the call belongs to no single request.
            task = self._loop.create_task(self._send_all(), context=contextvars.Context())
            self._senders.add(task)
            task.add_done_callback(self._senders.discard)

    async def _send_all(self) -> None:
        idle = True
        try:
            while self._forming:
                if not idle and len(self._forming) == 1:
                    await asyncio.sleep(self._limits.pause_s)
                idle = False
                batch = self._forming.popleft()
                self._events_waiting -= batch.events
                self._bytes_waiting -= batch.bytes
                try:
                    await self._send(batch)
                finally:
                    batch.finish()
        finally:
            # Nothing is awaited since the queue was seen empty: no event slips in between.
            self._calls_in_flight -= 1

    async def _send(self, batch: _Batch) -> None:
        now_s = self._loop.time()
        timeout_s = min(self._limits.call_s_max, batch.deadline_s - now_s)
        _CALL_EVENTS.observe(batch.events)
        try:
            if timeout_s <= 0:
                raise UnavailableError("waited too long", retry_after_s=1.0)
            receipts = await self._sink.record(batch.request(), timeout_s)
            if len(receipts) != batch.events:
                raise UnavailableError("receipts do not match")
            batch.receipts = receipts
        except DomainError as error:
            self._failed(batch, error)
        except BaseException as error:
            self._failed(batch, UnavailableError("the call broke off"))
            if not isinstance(error, Exception):
                raise
            log.exception("ingest_call_broken")
        else:
            _EVENTS.labels("answered").inc(batch.events)
        _CALL_SECONDS.observe(self._loop.time() - now_s)

    def _failed(self, batch: _Batch, error: DomainError) -> None:
        batch.error = error
        _EVENTS.labels("unknown").inc(batch.events)
        log.warning("ingest_call_failed", events=batch.events, error=str(error))


def _unknown_outcome(cause: DomainError) -> UnavailableError:
    return UnavailableError(
        "The event could not be stored", retry_after_s=cause.retry_after_s or 1.0
    )
