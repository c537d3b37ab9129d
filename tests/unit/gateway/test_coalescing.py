"""Events of many requests go to ingest in few calls, each gets its own receipt, and bounds hold."""

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from usageflow.ingest.v1.ingest_pb2 import (
    RECEIPT_STATUS_ACCEPTED,
    EventInput,
    EventReceipt,
    RecordTenantEventsRequest,
    RecordTenantEventsResponse,
    TenantEventInputs,
)

from gateway.coalescer import LOOK_PATIENCE_S, SLOW_S, Coalescer, Limits
from gateway.forming import Part, Recorded
from services.kit import usage_token
from services.kit.auth import Principal
from services.kit.errors import DomainError, OverloadedError, UnavailableError

T0 = datetime(2026, 11, 22, tzinfo=UTC)


def principal(organization: str = "org_a", mode: int = 2, past_days: int = 35) -> Principal:
    """A caller who may track."""
    scopes = frozenset({"track"})
    return Principal("key_1", organization, mode, "test", scopes, event_past_days=past_days)


def event(key: str) -> EventInput:
    """An event that is recognized by its key."""
    return EventInput(metric="A", amount="1", idempotency_key=key)


def parts(keys: Sequence[str], events_max: int) -> list[Part]:
    """Events of one batch, in parts of at most `events_max`."""
    starts = range(0, len(keys), events_max)
    chunks = [keys[start : start + events_max] for start in starts]
    return [
        Part(len(chunk), TenantEventInputs(events=map(event, chunk)).SerializeToString())
        for chunk in chunks
    ]


async def record(coalescer: Coalescer, who: Principal, key: str, size: int = 100) -> EventReceipt:
    """The receipt of one event."""
    receipt, _token = await coalescer.record(who, event(key), size)
    return receipt


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

    async def record(self, encoded: bytes, timeout_s: float) -> RecordTenantEventsResponse:
        """The receipts, and a token that says which call it was; or the next failure."""
        request = RecordTenantEventsRequest.FromString(encoded)
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
        token = usage_token.encode([], T0 + timedelta(seconds=len(self.calls)))
        del receipts[len(receipts) - self.receipts_missing :]
        return RecordTenantEventsResponse(receipts=receipts, usage_token=token)

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
    return [asyncio.create_task(record(coalescer, who, key)) for key in keys]


async def test_an_event_alone_goes_at_once() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    receipt = await record(coalescer, principal(), "k")
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
    receipts = await asyncio.gather(*(record(coalescer, who, key) for who, key in asked))
    assert [receipt.event_id for receipt in receipts] == [
        f"{who.organization_id}/{who.mode}/{key}" for who, key in asked
    ]
    assert max(ingest.sizes()) == 7


async def test_ingest_is_told_how_late_each_event_may_be() -> None:
    """Also while the setting changes, when requests with the old and the new one meet."""
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    ingest.open.clear()
    first = start(coalescer, principal(), ["first"])
    await until_quiet()
    old = start(coalescer, principal(past_days=35), ["a", "b"])
    new = start(coalescer, principal(past_days=400), ["c"])
    await until_quiet()
    ingest.open.set()
    receipts = await asyncio.gather(*first, *old, *new)
    assert [receipt.event_id[-1] for receipt in receipts[1:]] == ["a", "b", "c"]
    told = [(part.event_past_days, len(part.events)) for part in ingest.calls[1].tenants]
    assert told == [(35, 2), (400, 1)]


async def test_a_batch_gets_its_receipts_in_order_over_several_calls() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_per_call_max=10))
    others = start(coalescer, principal("org_b"), [f"other{n}" for n in range(5)])
    assert coalescer.part_events_max == 10
    keys = [f"k{n}" for n in range(25)]
    recorded = await coalescer.record_all(principal(), parts(keys, 10))
    assert [receipt.event_id for receipt in recorded.receipts] == [f"org_a/2/{k}" for k in keys]
    assert sum(ingest.sizes()) == 30
    await asyncio.gather(*others)
    # Its token stands for all calls that its events went with.
    assert usage_token.decode(recorded.usage_token).accept_time == T0 + timedelta(seconds=3)


async def test_single_events_and_batches_of_several_organizations_share_a_call() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    callers = [principal("org_a"), principal("org_b", 1)]
    batches = [
        asyncio.create_task(coalescer.record_all(who, parts([f"p{n}" for n in range(300)], 100)))
        for who in callers
    ]
    singles = [start(coalescer, who, [f"s{n}" for n in range(5)]) for who in callers]
    for who, batch, tasks in zip(callers, batches, singles, strict=True):
        tenant = f"{who.organization_id}/{who.mode}"
        assert [r.event_id for r in (await batch).receipts] == [
            f"{tenant}/p{n}" for n in range(300)
        ]
        assert [(await task).event_id for task in tasks] == [f"{tenant}/s{n}" for n in range(5)]
    assert ingest.sizes() == [610]


async def test_an_empty_batch_calls_nobody() -> None:
    ingest = MemoryIngest()
    assert await Coalescer(ingest, Limits()).record_all(principal(), []) == Recorded([], "")
    assert ingest.calls == []


async def test_a_call_is_bounded_in_bytes() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(bytes_per_call_max=1_000))
    await asyncio.gather(*(record(coalescer, principal(), f"k{n}", 400) for n in range(6)))
    assert ingest.sizes() == [2, 2, 2]


@pytest.mark.parametrize("calls_in_flight_max", [1, 2, 3])
async def test_no_more_calls_are_in_flight_than_allowed(calls_in_flight_max: int) -> None:
    ingest = MemoryIngest()
    limits = Limits(
        calls_in_flight_max=calls_in_flight_max, events_per_call_max=2, parallel_events_min=1
    )
    coalescer = Coalescer(ingest, limits)
    ingest.open.clear()
    requests = start(coalescer, principal(), [f"k{n}" for n in range(20)])
    await until_quiet()
    ingest.open.set()
    await asyncio.gather(*requests)
    assert ingest.in_flight_most == calls_in_flight_max
    assert sum(ingest.sizes()) == 20


async def test_a_second_call_beside_the_first_is_for_many_events_only() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(calls_in_flight_max=2, parallel_events_min=10))
    ingest.open.clear()
    requests = start(coalescer, principal(), ["first"])
    await until_quiet()
    requests += start(coalescer, principal(), [f"k{n}" for n in range(9)])
    await until_quiet()
    assert ingest.sizes() == [1]
    requests += start(coalescer, principal(), ["tenth"])
    await until_quiet()
    assert ingest.sizes() == [1, 10]
    ingest.open.set()
    await asyncio.gather(*requests)


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
    assert (await record(coalescer, principal(), "later")).event_id == "org_a/2/later"


async def test_a_batch_is_sent_whole_or_not_at_all() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(events_waiting_max=10))
    with pytest.raises(OverloadedError):
        await coalescer.record_all(principal(), parts([f"k{n}" for n in range(11)], 5))
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


class Client:
    """An Asker: somebody with a connection."""

    def __init__(self) -> None:
        self.gone = False
        self.outcomes: list[EventReceipt | DomainError] = []

    def answered(self, outcome: EventReceipt | DomainError, usage_token: str) -> None:
        """Keep what was told."""
        self.outcomes.append(outcome)


async def test_while_the_first_in_the_queue_waits_too_long_nobody_else_is_let_in() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits(wait_s_max=0.05))
    ingest.open.clear()
    first = start(coalescer, principal(), ["first"])
    await until_quiet()
    waiting = start(coalescer, principal(), ["waiting"])
    await asyncio.sleep(0.1)
    refusal = coalescer.refusal()
    assert isinstance(refusal, OverloadedError)
    assert refusal.retry_after_s == 1.0
    with pytest.raises(OverloadedError):
        await record(coalescer, principal(), "too late")
    ingest.open.set()
    await asyncio.gather(*first, *waiting)
    assert coalescer.refusal() is None


async def test_events_whose_clients_have_gone_are_left_out_of_a_late_call() -> None:
    ingest = MemoryIngest()
    coalescer = Coalescer(ingest, Limits())
    ingest.open.clear()
    first = start(coalescer, principal(), ["first"])
    await until_quiet()
    clients = [Client() for _ in range(4)]
    for number, client in enumerate(clients):
        coalescer.submit(principal(), event(f"k{number}"), 100, client)
    clients[0].gone = clients[2].gone = True
    await asyncio.sleep(SLOW_S + 0.05)
    ingest.open.set()
    await asyncio.gather(*first, *start(coalescer, principal(), ["last"]))
    sent = [e.idempotency_key for call in ingest.calls for t in call.tenants for e in t.events]
    assert sent == ["first", "k1", "k3", "last"]
    assert [
        [outcome.event_id for outcome in client.outcomes if isinstance(outcome, EventReceipt)]
        for client in clients
    ] == [[], ["org_a/2/k1"], [], ["org_a/2/k3"]]


async def test_while_ingest_is_away_callers_are_told_so_at_once() -> None:
    """One call at a time looks whether it is back; nobody waits behind it for long."""
    ingest = MemoryIngest()
    ingest.failures = [UnavailableError("away", retry_after_s=3.0), UnavailableError("away")]
    coalescer = Coalescer(ingest, Limits())
    with pytest.raises(UnavailableError):
        await record(coalescer, principal(), "first")
    ingest.open.clear()
    tasks = start(coalescer, principal(), ["look"])
    await until_quiet()
    tasks += start(coalescer, principal(), ["just after it"])
    await asyncio.sleep(LOOK_PATIENCE_S + 0.05)
    with pytest.raises(UnavailableError) as caught:
        await record(coalescer, principal(), "meanwhile")
    assert caught.value.retry_after_s == 3.0
    ingest.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2
    assert (await record(coalescer, principal(), "back")).event_id == "org_a/2/back"
    assert ingest.sizes() == [1, 1, 1]
    assert ingest.timeouts_s == [5.0, 2.0, 2.0]


async def test_who_has_waited_through_an_outage_does_not_wait_for_another_call() -> None:
    ingest = MemoryIngest()
    ingest.failures = [UnavailableError("away")]
    coalescer = Coalescer(ingest, Limits(wait_s_max=0.05))
    ingest.open.clear()
    tasks = start(coalescer, principal(), ["first"])
    await until_quiet()
    tasks += start(coalescer, principal(), ["waiting"])
    await asyncio.sleep(0.1)
    ingest.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [UnavailableError] * 2
    assert ingest.sizes() == [1]


async def test_an_ingest_that_is_overloaded_is_not_taken_to_be_away() -> None:
    ingest = MemoryIngest()
    ingest.failures = [OverloadedError("full", retry_after_s=2.0)]
    coalescer = Coalescer(ingest, Limits())
    with pytest.raises(UnavailableError) as caught:
        await record(coalescer, principal(), "refused")
    assert caught.value.retry_after_s == 2.0
    assert (await record(coalescer, principal(), "taken")).event_id == "org_a/2/taken"
