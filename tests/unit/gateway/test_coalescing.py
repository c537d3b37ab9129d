"""Events of many requests go to ingest in few calls, each gets its own receipt, and bounds hold."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest
from usageflow.ingest.v1.ingest_pb2 import (
    RECEIPT_STATUS_ACCEPTED,
    EventInput,
    EventReceipt,
    RecordTenantEventsRequest,
)

from gateway.coalescer import Coalescer, Limits
from services.kit.auth import Principal
from services.kit.errors import DomainError, OverloadedError, UnavailableError


def principal(organization: str = "org_a", mode: int = 2) -> Principal:
    """A caller who may track."""
    return Principal("key_1", organization, mode, "test", frozenset({"track"}))


def event(key: str) -> EventInput:
    """An event that is recognized by its key."""
    return EventInput(metric="A", amount="1", idempotency_key=key)


class MemoryIngest:
    """An EventSink that keeps what it gets; each receipt names whose event it is for.

    While `closed` its answers wait.
    """

    def __init__(self) -> None:
        self.calls: list[RecordTenantEventsRequest] = []
        self.timeouts_s: list[float] = []
        self.failures: list[Exception] = []
        self.receipts_missing = 0
        self.in_flight = 0
        self.in_flight_most = 0
        self.open = asyncio.Event()
        self.open.set()

    async def record(
        self, request: RecordTenantEventsRequest, timeout_s: float
    ) -> Sequence[EventReceipt]:
        """The receipts, or the next failure."""
        self.calls.append(request)
        self.timeouts_s.append(timeout_s)
        self.in_flight += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight)
        try:
            await self.open.wait()
        finally:
            self.in_flight -= 1
        if self.failures:
            raise self.failures.pop(0)
        receipts = [
            EventReceipt(
                status=RECEIPT_STATUS_ACCEPTED,
                event_id=f"{tenant.organization_id}/{tenant.mode}/{event.idempotency_key}",
            )
            for tenant in request.tenants
            for event in tenant.events
        ]
        return receipts[: len(receipts) - self.receipts_missing]

    def sizes(self) -> list[int]:
        """Events of each call."""
        return [sum(len(tenant.events) for tenant in call.tenants) for call in self.calls]


async def until_quiet() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def start(
    coalescer: Coalescer, who: Principal, keys: Sequence[str]
) -> list[asyncio.Task[EventReceipt]]:
    """A request for each key, all at once."""
    return [asyncio.create_task(coalescer.record(who, event(key), 100)) for key in keys]


async def test_an_event_alone_goes_at_once() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    receipt = await coalescer.record(principal(), event("k"), 100)
    assert receipt.event_id == "org_a/2/k"
    assert ingest.sizes() == [1]


async def test_what_arrives_during_a_call_goes_in_the_next_one() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    ingest.open.clear()
    first = start(coalescer, principal(), ["first"])
    await until_quiet()
    later = [start(coalescer, principal(), [f"k{n}"])[0] for n in range(50)]
    await until_quiet()
    assert ingest.sizes() == [1]
    ingest.open.set()
    await asyncio.gather(*first, *later)
    assert ingest.sizes() == [1, 50]


async def test_when_it_is_quiet_nothing_waits() -> None:
    coalescer = Coalescer(MemoryIngest(), Limits(pause_s=60))
    async with asyncio.timeout(5):
        for number in range(10):
            await coalescer.record(principal(), event(f"k{number}"), 100)


async def test_those_who_were_just_answered_join_the_next_call() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(pause_s=0.05))
    ingest.open.clear()
    first = start(coalescer, principal(), ["first"])
    await until_quiet()
    second = start(coalescer, principal(), ["second"])
    await until_quiet()
    ingest.open.set()
    await asyncio.gather(*first)
    third = start(coalescer, principal(), ["third"])
    await asyncio.gather(*second, *third)
    assert ingest.sizes() == [1, 2]


async def test_full_calls_do_not_wait_for_each_other() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_per_call_max=2, pause_s=0.2))
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await asyncio.gather(*start(coalescer, principal(), [f"k{n}" for n in range(20)]))
    assert ingest.sizes() == [2] * 10
    assert loop.time() - began_s < 1


async def test_every_request_gets_the_receipt_of_its_own_event() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_per_call_max=7))
    callers = [principal("org_a"), principal("org_b"), principal("org_a", 1)]
    asked = [(callers[n % 3], f"k{n}") for n in range(100)]
    receipts = await asyncio.gather(*(coalescer.record(who, event(key), 100) for who, key in asked))
    assert [receipt.event_id for receipt in receipts] == [
        f"{who.organization_id}/{who.mode}/{key}" for who, key in asked
    ]
    assert max(ingest.sizes()) == 7


async def test_a_batch_gets_its_receipts_in_order_over_several_calls() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_per_call_max=10))
    others = start(coalescer, principal("org_b"), [f"other{n}" for n in range(5)])
    events = [event(f"k{n}") for n in range(25)]
    receipts = await coalescer.record_all(principal(), events, 2_500)
    assert [receipt.event_id for receipt in receipts] == [f"org_a/2/k{n}" for n in range(25)]
    assert sum(ingest.sizes()) == 30
    await asyncio.gather(*others)


async def test_an_empty_batch_calls_nobody() -> None:
    ingest = MemoryIngest()
    assert await Coalescer(ingest, Limits()).record_all(principal(), [], 0) == []
    assert ingest.calls == []


async def test_a_call_is_bounded_in_bytes() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(bytes_per_call_max=1_000))
    await asyncio.gather(*(coalescer.record(principal(), event(f"k{n}"), 400) for n in range(6)))
    assert ingest.sizes() == [2, 2, 2]


@pytest.mark.parametrize("calls_in_flight_max", [1, 2, 3])
async def test_no_more_calls_are_in_flight_than_allowed(calls_in_flight_max: int) -> None:
    ingest = MemoryIngest()
    limits = Limits(calls_in_flight_max=calls_in_flight_max, events_per_call_max=2)
    coalescer = Coalescer(ingest, limits)
    ingest.open.clear()
    requests = start(coalescer, principal(), [f"k{n}" for n in range(20)])
    await until_quiet()
    ingest.open.set()
    await asyncio.gather(*requests)
    assert ingest.in_flight_most == calls_in_flight_max
    assert sum(ingest.sizes()) == 20


async def test_nothing_is_left_waiting_when_a_request_comes_just_as_a_call_ends() -> None:
    """The one after the other, with every delay from none to several turns of the loop."""
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    for turns in range(12):
        first = asyncio.create_task(coalescer.record(principal(), event("a"), 100))
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await coalescer.record(principal(), event("b"), 100)
            await first


async def test_an_event_without_key_gets_a_random_one() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    await asyncio.gather(*(coalescer.record(principal(), event(""), 100) for _ in range(100)))
    keys = {event.idempotency_key for call in ingest.calls for event in call.tenants[0].events}
    assert len(keys) == 100
    assert min(map(len, keys)) == 32


async def test_a_full_queue_refuses_at_once_and_takes_again_later() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_waiting_max=10))
    ingest.open.clear()
    in_flight = start(coalescer, principal(), ["first"])
    await until_quiet()
    waiting = start(coalescer, principal(), [f"k{n}" for n in range(10)])
    await until_quiet()
    with pytest.raises(OverloadedError) as caught:
        await coalescer.record(principal(), event("too many"), 100)
    assert caught.value.retry_after_s == 1.0
    ingest.open.set()
    await asyncio.gather(*in_flight, *waiting)
    assert (await coalescer.record(principal(), event("later"), 100)).event_id == "org_a/2/later"


async def test_a_batch_is_sent_whole_or_not_at_all() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_waiting_max=10))
    with pytest.raises(OverloadedError):
        await coalescer.record_all(principal(), [event(f"k{n}") for n in range(11)], 1_100)
    assert ingest.calls == []


async def test_the_queue_is_bounded_in_bytes() -> None:
    coalescer = Coalescer(MemoryIngest(), Limits(bytes_waiting_max=1_000))
    with pytest.raises(OverloadedError):
        await coalescer.record(principal(), event("k"), 1_000)


@pytest.mark.parametrize(
    "failure", [UnavailableError("away", retry_after_s=3.0), ValueError("a defect")]
)
async def test_a_failed_call_fails_each_of_its_requests_and_no_other(failure: Exception) -> None:
    ingest = MemoryIngest()
    ingest.failures = [failure]
    coalescer = Coalescer(ingest, Limits(events_per_call_max=3))
    outcomes = await asyncio.gather(
        *start(coalescer, principal(), [f"k{n}" for n in range(5)]), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 3 + [EventReceipt] * 2
    assert len({id(outcome) for outcome in outcomes}) == 5


async def test_a_failed_call_tells_when_to_try_again() -> None:
    ingest = MemoryIngest()
    ingest.failures = [UnavailableError("away", retry_after_s=3.0)]
    with pytest.raises(DomainError) as caught:
        await Coalescer(ingest, Limits()).record(principal(), event("k"), 100)
    assert caught.value.retry_after_s == 3.0


async def test_receipts_that_do_not_match_the_events_are_no_receipts() -> None:
    ingest = MemoryIngest()
    ingest.receipts_missing = 1
    outcomes = await asyncio.gather(
        *start(Coalescer(ingest, Limits()), principal(), ["a", "b"]), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2


async def test_a_cancelled_request_does_not_cancel_its_neighbours() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    ingest.open.clear()
    cancelled, neighbour = start(coalescer, principal(), ["cancelled", "neighbour"])
    await until_quiet()
    cancelled.cancel()
    await until_quiet()
    ingest.open.set()
    assert (await neighbour).event_id == "org_a/2/neighbour"
    with contextlib.suppress(asyncio.CancelledError):
        await cancelled
    assert cancelled.cancelled()


async def test_a_call_may_not_take_longer_than_its_events_may_wait() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(call_s_max=5.0, answer_s_max=2.0))
    await coalescer.record(principal(), event("k"), 100)
    assert 0 < ingest.timeouts_s[0] <= 2.0


async def test_events_that_waited_too_long_are_refused_without_a_call() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(answer_s_max=0.05))
    ingest.open.clear()
    first = start(coalescer, principal(), ["first"])
    await until_quiet()
    late = start(coalescer, principal(), ["late"])
    await until_quiet()
    asyncio.get_running_loop().call_later(0.1, ingest.open.set)
    with pytest.raises(UnavailableError):
        await late[0]
    await asyncio.gather(*first)
    assert ingest.sizes() == [1]
