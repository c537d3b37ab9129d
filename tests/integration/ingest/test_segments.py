"""An event with a key is stored once, also across the rotation of segments and among replicas."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from services.ingest import segment_keeper
from services.ingest.domain import Status
from tests.integration.ingest.conftest import Start
from tests.integration.ingest.instance import WAIT_S, Instance, event

ACCEPTED, DUPLICATE, CONFLICT = Status.ACCEPTED, Status.DUPLICATE, Status.CONFLICT


async def segments_of(ingest: Instance) -> list[int]:
    """The segments of all events, in the order in which they were stored."""
    rows = await ingest.sql("SELECT segment FROM events ORDER BY batch_id")
    return [row.segment for row in rows]


async def test_events_go_to_the_open_segment(ingest: Instance) -> None:
    await ingest.record(event("before"))
    assert await ingest.rotate() == 1
    await ingest.record(event("after"))
    assert await segments_of(ingest) == [1, 2]


@pytest.mark.parametrize("filtered", [False, True], ids=["asked directly", "by its filter"])
async def test_a_key_of_a_closed_segment_is_known(ingest: Instance, filtered: bool) -> None:
    await ingest.record(event("a", amount="1"), event("b", amount="1"))
    await ingest.rotate()
    if filtered:
        await ingest.closed_segments(filtered=True)
        known = await ingest.storage.segments.refresh()
        assert (list(known.filters), known.unfiltered) == ([1], [])
    sent = [event("b"), event("new"), event("a", amount="2"), event("b"), event("new")]
    assert await ingest.statuses(*sent) == [DUPLICATE, ACCEPTED, CONFLICT, DUPLICATE, DUPLICATE]
    assert await ingest.count() == 3


async def test_who_stored_all_of_a_segment_need_not_read_its_keys(start: Start) -> None:
    """And who stored a part of it has to."""
    first, second = await start(), await start()
    await first.record(event("a"), event("b"))
    await first.statuses(event("a"), event("b", amount="2"))
    await first.rotate()
    await first.record(event("c"))
    assert await second.statuses(event("a"), event("c"), event("d")) == [
        DUPLICATE,
        DUPLICATE,
        ACCEPTED,
    ]
    await first.rotate()
    noted = [
        [one.storage.segments.whole_filter(segment, 2) is not None for segment in (1, 2)]
        for one in (first, second)
    ]
    assert noted == [[True, False], [False, False]]
    assert await first.closed_segments(filtered=True) == [1, 2]
    for one in (first, second):
        known = await one.storage.segments.refresh()
        assert known.unfiltered == []
        assert await one.statuses(*map(event, "abcd")) == [DUPLICATE] * 4


async def test_a_key_is_known_in_whichever_segment_it_lies(ingest: Instance) -> None:
    for number in range(5):
        await ingest.record(event(f"key-{number}"))
        await ingest.rotate()
    keys = [event(f"key-{number}") for number in range(6)]
    assert await ingest.statuses(*keys) == [DUPLICATE] * 5 + [ACCEPTED]
    assert await ingest.count() == 6


async def test_a_replica_that_has_not_heard_of_the_rotation_learns_of_it(start: Start) -> None:
    """It names a segment that is closed; the database refuses, and it looks again."""
    first, second = await start(), await start()
    assert await second.statuses(event("a")) == [ACCEPTED]
    assert await first.statuses(event("b")) == [ACCEPTED]
    await first.rotate()
    assert await second.statuses(event("b"), event("c")) == [DUPLICATE, ACCEPTED]
    assert await first.statuses(event("a"), event("c")) == [DUPLICATE, DUPLICATE]
    assert await segments_of(first) == [1, 1, 2]


async def test_a_key_sent_to_all_replicas_while_segments_rotate_is_stored_once(
    start: Start,
) -> None:
    replicas = [await start() for _ in range(3)]
    rounds, keys = 20, 40
    accepted = 0
    for number in range(rounds):
        # Each round repeats half of the keys of the round before.
        wanted = [event(f"key-{number * keys // 2 + at}") for at in range(keys)]
        *statuses, _ = await asyncio.gather(
            *(replica.statuses(*wanted) for replica in replicas), replicas[number % 3].rotate()
        )
        for copies in zip(*statuses, strict=True):
            assert set(copies) <= {ACCEPTED, DUPLICATE}
            assert copies.count(ACCEPTED) <= 1
            accepted += copies.count(ACCEPTED)
    different = (rounds - 1) * keys // 2 + keys
    assert accepted == await replicas[0].count() == different
    [(distinct,)] = await replicas[0].sql("SELECT count(DISTINCT event_id) FROM events")
    assert distinct == different


async def test_a_transaction_in_flight_is_waited_for_and_no_other_is_let_in(
    start: Start, ingest_url: str
) -> None:
    ingest = await start()
    writer = await asyncpg.connect(ingest_url)
    async with asyncio.timeout(WAIT_S):
        await writer.execute("BEGIN; LOCK events_1 IN ROW EXCLUSIVE MODE")
        assert not await ingest.storage.maintenance.rotate(1)  # it gives up in good time
        await writer.execute("ROLLBACK")
        assert await ingest.storage.maintenance.rotate(1)
    await writer.close()
    with pytest.raises(DBAPIError, match="closed"):
        await ingest.sql(
            "INSERT INTO events_1 VALUES (now(), gen_random_uuid(), gen_random_uuid(), "
            "gen_random_uuid(), 1, 1, 'm')"
        )


async def test_two_replicas_that_rotate_at_once_open_one_segment(start: Start) -> None:
    first, second = await start(), await start()
    await asyncio.gather(first.storage.maintenance.rotate(1), second.storage.maintenance.rotate(1))
    assert await first.closed_segments() == [1]


async def test_a_full_segment_is_closed_by_itself(start: Start) -> None:
    ingest = await start(segment_events_max=1_000)
    async with asyncio.timeout(WAIT_S):
        stored = 0
        while len(await ingest.closed_segments()) < 2:
            await ingest.record(*(event(f"key-{stored + at}") for at in range(500)))
            stored += 500
            await asyncio.sleep(0.05)
    closed = await ingest.closed_segments(filtered=True, indexed=True)
    assert await ingest.count() == stored
    rows = await ingest.sql("SELECT event_count FROM event_segments WHERE segment = 1")
    [(counted,)] = await ingest.sql("SELECT count(*) FROM events WHERE segment = 1")
    assert [row.event_count for row in rows] == [counted]
    assert closed[0] == 1
    again = await ingest.statuses(*(event(f"key-{at}") for at in range(500)))
    assert again == [DUPLICATE] * 500


async def test_filters_beyond_their_bound_are_done_without(start: Start) -> None:
    """Slower, and as exact."""
    ingest = await start(key_filters_bytes_max=1024**2)
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True)
    ingest.storage.segments._filters_bytes_max = 1
    known = await ingest.storage.segments.refresh()
    assert (dict(known.filters), known.unfiltered) == ({}, [1])
    assert await ingest.statuses(event("a")) == [DUPLICATE]


async def test_a_batch_in_a_closed_segment_is_rebuilt(ingest: Instance) -> None:
    await ingest.record(event("a"), event("b"))
    [pending] = await ingest.outbox.pending(10)
    [before] = await ingest.outbox.load([pending.message_id])
    await ingest.rotate()
    [after] = await ingest.outbox.load([pending.message_id])
    assert before == after


async def test_what_a_segment_lacks_it_gets_after_its_keeper_was_killed(start: Start) -> None:
    """The lock goes with the connection; another replica takes over."""
    first, second = await start(), await start()
    await first.record(event("a"))
    await first.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'usageflow-ingest-keeper' AND datname = current_database()"
    )
    await first.rotate()
    assert await second.closed_segments(filtered=True, indexed=True) == [1]


async def test_indexes_for_searching_wait_while_many_events_come(
    ingest: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever."""
    looks: list[int] = []

    def events_taken() -> int:
        looks.append(1_000_000)
        return sum(looks)

    async def looked(times: int) -> None:
        wanted = len(looks) + times
        async with asyncio.timeout(WAIT_S):
            while len(looks) < wanted:
                await asyncio.sleep(0.02)

    monkeypatch.setattr(ingest.storage.keeper, "_events_taken", events_taken)
    await looked(1)
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True)
    await looked(2)
    unindexed = "SELECT count(*) FROM event_segments WHERE segment = 1 AND index_time IS NULL"
    assert await ingest.sql(unindexed) == [(1,)]
    monkeypatch.setattr(segment_keeper, "INDEXES_WAIT_MAX", timedelta(0))
    assert await ingest.closed_segments(filtered=True, indexed=True) == [1]
