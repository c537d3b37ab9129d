"""Which events were in a figure, whatever came and was voided since."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from usageflow.common.v1 import common_pb2
from usageflow.ingest.v1 import counted_pb2

from services.ingest.counted import service
from services.ingest.counted.repository import Boundary, CountedFilter
from services.ingest.counted.service import CountedEvents
from services.ingest.counted.servicer import CountedEventsServicer
from services.kit.errors import InvalidArgumentError
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


async def batch_of(ingest: Instance, *amounts: str) -> tuple[list[str], UUID]:
    """Record events of these amounts: their ids, and the batch they are in."""
    receipts = await ingest.record(*(event(amount=a, customer_id="c") for a in amounts))
    ids = [receipt.event_id for receipt in receipts]
    return ids, await batch_with(ingest, "events", ids[0])


async def batch_with(ingest: Instance, table: str, event_id: str) -> UUID:
    [(batch_id,)] = await ingest.sql(
        f"SELECT batch_id FROM {table} WHERE event_id = :id", id=UUID(event_id[4:])
    )
    return UUID(str(batch_id))


async def void(ingest: Instance, event_id: str) -> UUID:
    """Void an event; the batch of the void."""
    await ingest.voids.void(ACME, [event_id], "wrong", key_id="key_1")
    return await batch_with(ingest, "event_voids", event_id)


async def listed(
    ingest: Instance,
    until: Sequence[UUID],
    since: Sequence[UUID] | None = None,
    before: datetime = LONG_AGO,
) -> list[str]:
    """Amounts of the events, smallest first; with "-" those that were taken out."""
    now = datetime.now(UTC)
    earlier = None if since is None else Boundary(before, since)
    wanted = CountedFilter(
        ACME, "API_CALL", "c", now - DAY, now + DAY, Boundary(before, until), earlier
    )
    page = await CountedEvents(ingest.database).list_counted_events(wanted, 0, "")
    assert not page.dropped
    return sorted("-" * each.taken_out + each.event.amount for each in page.events)


async def test_events_are_counted_by_their_batches(ingest: Instance) -> None:
    _, first = await batch_of(ingest, "1", "2")
    _, second = await batch_of(ingest, "3")
    assert await listed(ingest, []) == []
    assert await listed(ingest, [first]) == ["1", "2"]
    assert await listed(ingest, [first, second]) == ["1", "2", "3"]
    assert await listed(ingest, [], before=datetime.now(UTC) + DAY) == ["1", "2", "3"]
    assert await listed(ingest, [first, second], since=[first]) == ["3"]


async def test_a_void_counts_from_its_own_batch_on(ingest: Instance) -> None:
    (one, _), first = await batch_of(ingest, "1", "2")
    gone = await void(ingest, one)
    assert await listed(ingest, [first]) == ["1", "2"]
    assert await listed(ingest, [first, gone]) == ["2"]
    assert await listed(ingest, [first, gone], since=[first]) == ["-1"]
    assert await listed(ingest, [first, gone], since=[]) == ["2"]


async def test_only_what_is_asked_for_is_listed(ingest: Instance) -> None:
    await ingest.record(event(customer_id="d"), event(customer_id="c", metric="OTHER"), event())
    for tenant in (OTHER, ACME_TEST):
        await ingest.record(event(customer_id="c"), tenant=tenant)
    assert await listed(ingest, [], before=datetime.now(UTC) + DAY) == []


async def test_pages_follow_one_another_across_segments(ingest: Instance) -> None:
    amounts = [str(number) for number in range(1, 8)]
    for amount in amounts:
        await batch_of(ingest, amount)
        if amount == "4":
            await ingest.rotate()
    now = datetime.now(UTC)
    wanted = CountedFilter(
        ACME, "API_CALL", "c", now - DAY, now + DAY, Boundary(now + DAY, ()), None
    )
    counted, token, seen = CountedEvents(ingest.database), "", []
    while True:
        page = await counted.list_counted_events(wanted, 3, token)
        seen += page.events
        token = page.next_token
        if not token:
            break
    assert sorted(each.event.amount for each in seen) == amounts
    places = [(each.event.event_time, each.event.event_id) for each in seen]
    assert places == sorted(places, reverse=True)
    none = await counted.list_counted_events(replace(wanted, end=now - DAY), 3, "")
    assert none.events == []


async def test_amounts_stream_in_the_order_in_which_events_happened(
    ingest: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across segments, whatever the order in which they came, without what was void by then."""
    monkeypatch.setattr(service, "AMOUNTS_PER_MESSAGE_MAX", 2)
    now = datetime.now(UTC)
    ids = []
    for hours in (3, 1, 4, 2):
        micros = round((now - timedelta(hours=hours)).timestamp() * 1e6)
        given = event(amount=f"{hours}.5", customer_id="c", at_micros=micros)
        ids += [each.event_id for each in await ingest.record(given)]
        await ingest.rotate()
    batches = [await batch_with(ingest, "events", each) for each in ids]
    gone = await void(ingest, ids[3])

    async def amounts(until: Sequence[UUID]) -> list[list[str]]:
        wanted = CountedFilter(
            ACME, "API_CALL", "c", now - DAY, now, Boundary(LONG_AGO, until), None
        )
        return [part async for part in CountedEvents(ingest.database).stream_amounts(wanted)]

    assert await amounts(batches) == [["4.5", "3.5"], ["2.5", "1.5"]]
    assert await amounts([*batches, gone]) == [["4.5", "3.5"], ["1.5"]]
    assert await amounts(batches[:1]) == [["3.5"]]
    assert await amounts([]) == []


async def test_all_that_is_wrong_with_a_question_is_named(ingest: Instance) -> None:
    servicer = CountedEventsServicer(CountedEvents(ingest.database))
    request = counted_pb2.ListCountedEventsRequest(
        mode=common_pb2.MODE_UNSPECIFIED, until=counted_pb2.CountedBoundary(batch_ids=b"short")
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await servicer.ListCountedEvents(request, None)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {
        "mode", "metric", "customerId", "from", "to", "until.before", "until.batchIds"
    }  # fmt: skip
