"""A history gives all events of a metric, or their voids, each once, however often it is left."""

import dataclasses
from datetime import timedelta
from uuid import UUID

import pytest
from usageflow.events.v1.events_pb2 import EventBatch

from services.ingest.history import (
    EVENTS_PER_PART_MAX,
    Histories,
    HistoryCursor,
    HistoryFilter,
    HistoryPart,
)
from services.kit.errors import InvalidArgumentError
from tests.columns import events_of
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event, now_micros

EVENTS = HistoryFilter(ACME, "API_CALL")
VOIDS = dataclasses.replace(EVENTS, voids=True)


async def parts_of(
    ingest: Instance, wanted: HistoryFilter = EVENTS, *, events_per_call_max: int = 200_000
) -> list[list[HistoryPart]]:
    """The parts of all calls that it takes."""
    histories = Histories(ingest.database, events_per_call_max)
    calls: list[list[HistoryPart]] = []
    cursor = ""
    while not calls or cursor:
        answer = histories.replay(wanted, HistoryCursor.decode(cursor))
        calls.append([part async for part in answer])
        cursor = calls[-1][-1].next_cursor
    return calls


def amounts(calls: list[list[HistoryPart]]) -> list[str]:
    """The amounts of the events, in the order in which they came."""
    return [
        each.amount
        for call in calls
        for part in call
        for batch in part.batches
        for each in batch.events
    ]


async def test_a_history_is_of_one_metric_of_one_tenant(ingest: Instance) -> None:
    await ingest.record(event("a", amount="1"), event("b", amount="2", metric="OTHER"))
    await ingest.record(event("c", amount="3"), tenant=OTHER)
    await ingest.record(event("d", amount="4"), tenant=ACME_TEST)
    assert amounts(await parts_of(ingest)) == ["1"]
    assert amounts(await parts_of(ingest, dataclasses.replace(EVENTS, tenant=OTHER))) == ["3"]
    assert amounts(await parts_of(ingest, dataclasses.replace(EVENTS, metric="NOTHING"))) == []


async def test_events_come_by_time_with_the_batch_they_were_accepted_in(ingest: Instance) -> None:
    """Each batch is that which was published, but for what others have in it."""
    start = now_micros() - 10**9
    for number, amount in enumerate(("3", "1", "2")):
        await ingest.record(
            event(f"k{number}", amount=amount, at_micros=start + int(amount), customer_id="c"),
            event(f"o{number}", metric="OTHER"),
        )
    [call] = await parts_of(ingest)
    assert amounts([call]) == ["1", "2", "3"]
    batches = [batch for part in call for batch in part.batches]
    sent = await ingest.outbox.load([str(batch.batch_id) for batch in batches])
    assert len(sent) == len(batches) == 3
    for batch in batches:
        [payload] = [each.payload for each in sent if each.message_id == str(batch.batch_id)]
        published = EventBatch.FromString(payload)
        assert published.accept_time.ToMicroseconds() == batch.accept_time.timestamp() * 10**6
        same = [each for each in events_of(published) if each.metric == "API_CALL"]
        assert same == batch.events


async def test_voided_events_are_in_and_voids_have_a_history_of_their_own(
    ingest: Instance,
) -> None:
    receipts = await ingest.record(
        *(event(key, amount=str(number)) for number, key in enumerate("abc"))
    )
    await ingest.record(event("d", metric="OTHER"))
    await ingest.voids.void(ACME, [receipts[1].event_id], "", key_id="key_1")
    await ingest.voids.void(ACME, [receipts[2].event_id], "", key_id="key_1")
    assert sorted(amounts(await parts_of(ingest))) == ["0", "1", "2"]
    [call] = await parts_of(ingest, VOIDS)
    assert sorted(amounts([call])) == ["1", "2"]
    batches = [batch for part in call for batch in part.batches]
    accepted = await ingest.sql(
        "SELECT batch_id, accept_time FROM event_batches WHERE void_count > 0"
    )
    assert {(batch.batch_id, batch.accept_time) for batch in batches} == {
        tuple(r) for r in accepted
    }


@pytest.mark.parametrize("indexed", [False, True])
async def test_a_history_goes_through_all_segments(ingest: Instance, indexed: bool) -> None:
    for segment in range(3):
        await ingest.record(*(event(f"{segment}-{n}", amount=str(n)) for n in range(3)))
        await ingest.rotate()
    if indexed:
        await ingest.closed_segments(indexed=True)
    await ingest.record(event("open", amount="9"))
    calls = await parts_of(ingest)
    assert len(calls) == 4, "a segment a call"
    assert sorted(amounts(calls)) == sorted(["0", "1", "2"] * 3 + ["9"])


@pytest.mark.parametrize("voids", [False, True], ids=["events", "voids"])
async def test_a_history_can_be_gone_on_with_behind_any_event(
    ingest: Instance, voids: bool
) -> None:
    """Also when many happened at the same instant, and a segment is closed in between."""
    start = now_micros() - 10**9
    wanted = dataclasses.replace(EVENTS, voids=voids)
    for segment in range(2):
        receipts = await ingest.record(
            *(event(f"{segment}-{n}", amount=str(n), at_micros=start + n // 4) for n in range(10))
        )
        ids = [receipt.event_id for receipt in receipts]
        await ingest.voids.void(ACME, ids, "", key_id="key_1")
        await ingest.rotate()
    for events_per_call_max in (1, 3, 10):
        calls = await parts_of(ingest, wanted, events_per_call_max=events_per_call_max)
        assert all(len(amounts([call])) <= events_per_call_max for call in calls)
        assert sorted(amounts(calls), key=int) == [str(n // 2) for n in range(20)]


async def test_parts_are_bounded(ingest: Instance) -> None:
    await ingest.record(*(event(f"k{n}") for n in range(EVENTS_PER_PART_MAX + 1)))
    [call] = await parts_of(ingest)
    assert [len(amounts([[part]])) for part in call] == [EVENTS_PER_PART_MAX, 1, 0]


async def test_what_comes_meanwhile_takes_nothing_away(ingest: Instance) -> None:
    await ingest.record(*(event(f"k{n}") for n in range(EVENTS_PER_PART_MAX * 2)))
    seen: set[bytes] = set()
    cursor = ""
    for step in range(10):
        answer = Histories(ingest.database, EVENTS_PER_PART_MAX).replay(
            EVENTS, HistoryCursor.decode(cursor)
        )
        async for part in answer:
            ids = [each.event_id for batch in part.batches for each in batch.events]
            assert not seen.intersection(ids)
            seen.update(ids)
            cursor = part.next_cursor
        if not cursor:
            break
        await ingest.record(*(event(f"later{step}-{n}") for n in range(10)))
        await ingest.rotate()
    first = await ingest.sql("SELECT event_id FROM events WHERE segment = 1 ORDER BY batch_id")
    assert {row.event_id.bytes for row in first[: EVENTS_PER_PART_MAX * 2]} <= seen


@pytest.mark.parametrize(
    "cursor", ["x", "WyIxIl0", HistoryCursor(10**6).encode(), HistoryCursor(-1).encode()]
)
async def test_a_made_up_cursor_is_refused(ingest: Instance, cursor: str) -> None:
    with pytest.raises(InvalidArgumentError, match="cursor"):
        async for _part in Histories(ingest.database).replay(EVENTS, HistoryCursor.decode(cursor)):
            pass


def test_a_cursor_says_what_it_was_made_of() -> None:
    cursor = HistoryCursor(3, timedelta(days=20_000) // timedelta(microseconds=1), UUID(int=7))
    assert HistoryCursor.decode(cursor.encode()) == cursor
