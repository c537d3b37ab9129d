"""Events of all requests on their way to ingest, many in one call.

While a call is in flight the next one forms out of whatever arrives. When it is quiet an event
goes at once; after a call of several events, or one during which others came, there is a pause of
some milliseconds, so that those who were just answered can join: fewer, fuller calls cost all parts
less, which more than makes up for the pause (docs/adr/0020 has the figures).

Overload: the queue is bounded in events, in bytes and in time: as long as the event in front has
waited for `wait_s_max`, nobody else is let in. So the queue is never longer than what ingest stores
in about that time, whatever its speed is just now. While ingest is away callers are told so at
once, but for those of one call at a time, which looks whether it is back.

Every event has an idempotency key on this way: one without gets a random key here, so that a call
may be repeated (kit's channels repeat it when ingest is away) without storing anything twice.
"""

import asyncio
import contextvars
import secrets
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from prometheus_client import Counter, Histogram
from usageflow.ingest.v1.ingest_pb2 import (
    EventInput,
    EventReceipt,
    RecordTenantEventsResponse,
)

from gateway.forming import Asker, FormingCall, Part, PartOutcome, Recorded, Tenant
from services.kit import usage_token
from services.kit.auth import Principal
from services.kit.errors import DomainError, OverloadedError, UnavailableError

log = structlog.get_logger()

# 192 random bits: no caller can guess it, and two never meet.
RANDOM_KEY_BYTES: Final = 24
EVENT_OVERHEAD_BYTES: Final = 64
# Events of one request that stay together in a call.
PART_EVENTS_MAX: Final = 1_000
# While ingest is away, those who come before a call has taken so long wait for it.
LOOK_PATIENCE_S: Final = 0.25
RETRY_AFTER_S: Final = 1.0
# Events in a queue this slow are looked at once more before they are sent: is anybody there?
SLOW_S: Final = 0.25
_EVENTS = Counter("usageflow_gateway_events_sent", "Events sent to ingest", ["outcome"])
_overloaded = _EVENTS.labels("overloaded")
_CALL_EVENTS = Histogram(
    "usageflow_gateway_ingest_call_events",
    "Events in a call to ingest",
    buckets=(1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000),
)
_CALL_SECONDS = Histogram("usageflow_gateway_ingest_call_seconds", "Time of a call to ingest")


class EventSink(Protocol):
    """Stores events."""

    async def record(self, request: bytes, timeout_s: float) -> RecordTenantEventsResponse:
        """A receipt for each event, in the order of the request, which is an encoded
        RecordTenantEventsRequest; DomainError when it is unknown what became of them.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the coalescer."""

    calls_in_flight_max: int = 2
    parallel_events_min: int = 200
    events_per_call_max: int = 2_000
    bytes_per_call_max: int = 4 * 1024 * 1024
    events_waiting_max: int = 20_000
    bytes_waiting_max: int = 32 * 1024 * 1024
    wait_s_max: float = 2.0
    call_s_max: float = 5.0
    look_s_max: float = 2.0
    answer_s_max: float = 10.0
    pause_s: float = 0.002


class _Task:
    """An Asker that is a task."""

    gone = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.outcome: PartOutcome = loop.create_future()

    def answered(self, outcome: EventReceipt | DomainError, usage_token: str) -> None:
        """Wake the task, unless it is gone."""
        if self.outcome.done():
            return
        if isinstance(outcome, DomainError):
            self.outcome.set_result(outcome)
        else:
            self.outcome.set_result(Recorded((outcome,), usage_token))


class Coalescer:
    """Joins events into calls; what waits is bounded in events, bytes and time."""

    def __init__(self, sink: EventSink, limits: Limits) -> None:
        self._sink = sink
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._forming: deque[FormingCall] = deque()
        self._events_waiting = 0
        self._bytes_waiting = 0
        self._calls_in_flight = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._call_began_s = 0.0
        # Why the last call failed; None: ingest is there, as far as is known.
        self._away: UnavailableError | None = None

    @property
    def part_events_max(self) -> int:
        """Events that a part may have."""
        return min(PART_EVENTS_MAX, self._limits.events_per_call_max)

    def refusal(self, events: int = 1, size: int = 0) -> DomainError | None:
        """Why so many events of so many bytes can't be taken now; None: they can."""
        limits = self._limits
        if (
            self._away is not None
            and self._calls_in_flight
            and self._loop.time() - self._call_began_s > LOOK_PATIENCE_S
        ):
            return UnavailableError("ingest is away", retry_after_s=self._away.retry_after_s)
        if (
            self._events_waiting + events > limits.events_waiting_max
            or self._bytes_waiting + size + events * EVENT_OVERHEAD_BYTES > limits.bytes_waiting_max
            or (self._forming and self._waited_s(self._forming[0]) > limits.wait_s_max)
        ):
            _overloaded.inc(events)
            return OverloadedError(
                "Too many events are waiting; try again", retry_after_s=RETRY_AFTER_S
            )
        return None

    def _waited_s(self, call: FormingCall) -> float:
        return self._loop.time() - call.since_s

    def submit(self, principal: Principal, event: EventInput, size: int, asker: Asker) -> None:
        """Take an event of about `size` bytes, which refusal() has let in; `asker` is answered."""
        if not event.idempotency_key:
            event.idempotency_key = secrets.token_urlsafe(RANDOM_KEY_BYTES)
        size += EVENT_OVERHEAD_BYTES
        self._call_for(1, size).add(_tenant(principal), event, size, asker)
        self._events_waiting += 1
        self._bytes_waiting += size
        self._wake()

    async def record(
        self, principal: Principal, event: EventInput, size: int
    ) -> tuple[EventReceipt, str]:
        """The event's receipt and usage token; `size` is about its length in bytes.

        OverloadedError: the queue is full and nothing was sent. UnavailableError: what became of
        it is unknown; the same key again is safe.
        """
        self._require_room(1, size)
        task = _Task(self._loop)
        self.submit(principal, event, size, task)
        receipts, token = _unless_error(await task.outcome)
        return receipts[0], token

    async def record_all(self, principal: Principal, parts: Sequence[Part]) -> Recorded:
        """The receipts of many events, in order; either all are sent or none. Errors as above.

        Each part has at most `part_events_max` events, all with idempotency keys.
        """
        self._require_room(
            sum(part.events for part in parts), sum(len(part.encoded) for part in parts)
        )
        outcomes = [self._join(_tenant(principal), part) for part in parts]
        self._wake()
        recorded = [_unless_error(await outcome) for outcome in outcomes]
        receipts = [receipt for part in recorded for receipt in part.receipts]
        return Recorded(receipts, usage_token.join(part.usage_token for part in recorded))

    def _require_room(self, events: int, size: int) -> None:
        refusal = self.refusal(events, size)
        if refusal is not None:
            raise refusal

    def _join(self, tenant: Tenant, part: Part) -> PartOutcome:
        outcome: PartOutcome = self._loop.create_future()
        self._call_for(part.events, len(part.encoded)).add_part(tenant, part, outcome)
        self._events_waiting += part.events
        self._bytes_waiting += len(part.encoded)
        return outcome

    def _call_for(self, events: int, size: int) -> FormingCall:
        if self._forming:
            call = self._forming[-1]
            if (
                call.events + events <= self._limits.events_per_call_max
                and call.bytes + size <= self._limits.bytes_per_call_max
            ):
                return call
        call = FormingCall(self._loop.time())
        self._forming.append(call)
        return call

    def _wake(self) -> None:
        if self._due(self._calls_in_flight):
            self._calls_in_flight += 1
            # An empty context: the call belongs to no single request.
            task = self._loop.create_task(self._send_all(), context=contextvars.Context())
            self._senders.add(task)
            task.add_done_callback(self._senders.discard)

    def _due(self, others_in_flight: int) -> bool:
        """Whether what waits is worth a call now: the first always is, one beside others when it
        carries enough, for many small calls cost all parts more than waiting for one to end. While
        ingest is away one at a time looks for it.
        """
        if not others_in_flight:
            return bool(self._forming)
        return (
            others_in_flight < self._limits.calls_in_flight_max
            and self._away is None
            and self._events_waiting >= self._limits.parallel_events_min
        )

    async def _send_all(self) -> None:
        try:
            while self._due(self._calls_in_flight - 1):
                call = self._taken()
                await self._send(call)
                if len(self._forming) <= 1 and (call.events > 1 or self._forming):
                    await asyncio.sleep(self._limits.pause_s)
        finally:
            # Nothing is awaited since the queue was seen empty: no event slips in between.
            self._calls_in_flight -= 1

    def _taken(self) -> FormingCall:
        call = self._forming.popleft()
        self._events_waiting -= call.events
        self._bytes_waiting -= call.bytes
        return call

    async def _send(self, call: FormingCall) -> None:
        waited_s = self._waited_s(call)
        if waited_s > SLOW_S:
            _EVENTS.labels("gone").inc(call.drop_gone())
            if not call.events:
                return
        self._call_began_s = began_s = self._loop.time()
        call_s_max = self._limits.call_s_max if self._away is None else self._limits.look_s_max
        timeout_s = min(call_s_max, self._limits.answer_s_max - waited_s)
        _CALL_EVENTS.observe(call.events)
        try:
            if timeout_s <= 0:
                raise OverloadedError("waited too long", retry_after_s=RETRY_AFTER_S)
            response = await self._sink.record(call.request(), timeout_s)
            if len(response.receipts) != call.events:
                raise UnavailableError("receipts do not match")
        except DomainError as error:
            self._failed(call, error)
            if isinstance(error, UnavailableError):
                self._note_away(error)
        except BaseException as error:
            self._failed(call, UnavailableError("the call broke off"))
            if not isinstance(error, Exception):
                raise
            log.exception("ingest_call_broken")
        else:
            self._away = None
            _EVENTS.labels("answered").inc(call.events)
            call.answer(response)
        _CALL_SECONDS.observe(self._loop.time() - began_s)

    def _failed(self, call: FormingCall, error: DomainError) -> None:
        _EVENTS.labels("unknown").inc(call.events)
        log.warning("ingest_call_failed", events=call.events, error=str(error))
        call.fail(error)

    def _note_away(self, error: UnavailableError) -> None:
        """Nobody waits for a second call that fails, unless they have only just come."""
        known, self._away = self._away is not None, error
        while self._forming and (
            known or self._waited_s(self._forming[0]) > self._limits.wait_s_max
        ):
            self._failed(self._taken(), error)


def _tenant(principal: Principal) -> Tenant:
    return (
        principal.organization_id,
        principal.mode,
        principal.event_past_days,
        principal.strict_metrics,
        principal.test_clocks,
    )


def _unless_error(outcome: Recorded | DomainError) -> Recorded:
    if isinstance(outcome, DomainError):
        raise outcome
    return outcome
