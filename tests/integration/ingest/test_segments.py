"""An event with a key is stored once, also across the rotation of segments and among replicas."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError

from services.ingest import segment_keeper
from services.ingest.domain import Status
from services.ingest.key_filter import HashedIds, KeyFilter
from services.ingest.maintenance import Maintenance
from services.ingest.paged_filter import MemoryFilter
from services.ingest.segment_keeper import SegmentKeeper
from services.ingest.segment_repository import store_part
from services.ingest.segments import Segments
from services.kit.database import Database
from services.kit.ids import new_uuid
from tests.integration.ingest.conftest import Start
from tests.integration.ingest.instance import WAIT_S, Instance, event
from tests.waiting import until

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


@pytest.fixture
def read_segments(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The segments whose keys were read to make their filters."""
    read: list[int] = []
    read_keys = SegmentKeeper._read_keys

    async def note(
        keeper: SegmentKeeper, segment: int, count: int, *, second: bool = False
    ) -> KeyFilter:
        if not second:
            read.append(segment)
        return await read_keys(keeper, segment, count, second=second)

    monkeypatch.setattr(SegmentKeeper, "_read_keys", note)
    return read


async def stored_parts(ingest: Instance) -> int:
    [(count,)] = await ingest.sql("SELECT count(*) FROM key_filter_parts")
    return int(count)


async def test_what_replicas_noted_of_a_segment_is_its_filter(
    start: Start, read_segments: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when one of them has all of it, or has nothing to do any more."""
    monkeypatch.setattr(segment_keeper, "PARTS_WAIT_S", WAIT_S)
    first, second, third = await start(), await start(), await start()
    await first.record(event("a"), event("b"))
    await second.statuses(event("a"), event("b", amount="2"))
    await first.rotate()
    await first.record(event("c"))
    await third.record(event("d"))
    assert await second.statuses(event("a"), event("c"), event("e")) == [
        DUPLICATE,
        DUPLICATE,
        ACCEPTED,
    ]
    await second.rotate()
    assert await first.closed_segments(filtered=True) == [1, 2]
    assert read_segments == []
    assert await stored_parts(first) == 0
    for one in (first, second, third):
        known = await one.storage.segments.refresh()
        assert known.unfiltered == []
        assert await one.statuses(*map(event, "abcde")) == [DUPLICATE] * 5


async def test_what_nobody_tells_is_read(
    start: Start, read_segments: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that is gone cannot tell any more what it stored."""
    monkeypatch.setattr(segment_keeper, "PARTS_WAIT_S", 0.1)
    first, second = await start(), await start()
    await first.record(event("a"))
    await second.record(event("b"))
    for one in (first, second):
        monkeypatch.setattr(one.storage.segments, "_noted", {})
    await first.record(event("c"))
    await first.rotate()
    assert await first.closed_segments(filtered=True) == [1]
    assert read_segments == [1]
    assert await second.statuses(*map(event, "abcd")) == [DUPLICATE] * 3 + [ACCEPTED]


async def test_filters_of_other_sizes_are_not_put_together(
    start: Start, read_segments: list[int]
) -> None:
    """As while a setting is being changed."""
    first, second = await start(), await start(segment_events_max=1_000)
    await first.record(event("a"))
    await second.record(event("b"))
    await first.rotate()
    assert await first.closed_segments(filtered=True) == [1]
    assert read_segments == [1]
    assert await stored_parts(first) == 0
    assert await second.statuses(*map(event, "abc")) == [DUPLICATE, DUPLICATE, ACCEPTED]


async def test_what_is_noted_after_it_was_told_is_told_again(
    ingest_url: str, tmp_path: Path
) -> None:
    """A commit may be known to its writer only after the closing is."""
    database = Database(ingest_url)
    segments = Segments(
        database,
        events_max=1_000,
        filters_bytes_max=1024**2,
        resident_bytes_max=0,
        directory=str(tmp_path),
    )
    await segments.refresh()
    segments.note_stored(1, HashedIds(bytes(16)))
    assert not await segments.hand_over()
    await Maintenance(database, segments, segment_events_max=1_000).rotate(1)
    await segments.refresh()
    told = []
    for more in (0, 2, 0):
        segments.note_stored(1, HashedIds(bytes(16 * more)))
        assert await segments.hand_over()
        async with database.transaction() as connection:
            parts = await connection.execute(text("SELECT event_count, xmin FROM key_filter_parts"))
            told.append(tuple(parts.one()))
    await database.close()
    assert [count for count, _ in told] == [1, 3, 3]
    assert told[1] == told[2]


async def test_no_part_is_kept_of_a_segment_that_has_its_filter(ingest: Instance) -> None:
    """Nor of one that is open, or is not there."""
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True)
    for segment in (1, 2, 3):
        async with ingest.database.transaction() as connection:
            await store_part(connection, segment, new_uuid(), 1, bytes(32))
        assert await stored_parts(ingest) == 0


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


async def test_filters_beyond_their_bound_are_not_read(
    ingest: Instance, ingest_url: str, tmp_path: Path
) -> None:
    """They are as many megabytes as there are segments, at every look."""
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(indexed=True)
    database = Database(ingest_url)
    looked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        looked.append(statement)

    listen(database.engine.sync_engine, "before_cursor_execute", note)
    for bytes_max, unfiltered, statements in ((1, [1], 1), (8 * 1024**2, [], 3)):
        segments = Segments(
            database,
            events_max=1_000,
            filters_bytes_max=bytes_max,
            resident_bytes_max=0,
            directory=str(tmp_path),
        )
        looked.clear()
        assert (await segments.refresh()).unfiltered == unfiltered
        assert len([each for each in looked if "event_segments" in each]) == statements
        # What is there is not read again.
        looked.clear()
        assert (await segments.refresh()).unfiltered == unfiltered
        assert len([each for each in looked if "event_segments" in each]) == 1
    await database.close()


@pytest.mark.parametrize("second", [True, False])
async def test_what_passes_a_filter_by_chance_is_held_up_by_the_second(
    ingest: Instance, ingest_url: str, tmp_path: Path, second: bool
) -> None:
    """So that PostgreSQL is not asked. A segment that has no second filter yet is."""
    await ingest.record(*map(event, "abc"))
    await ingest.rotate()
    await ingest.closed_segments(indexed=True)
    known = await ingest.storage.segments.refresh()
    everything = KeyFilter(np.full((1, 4), 2**64 - 1, np.uint64))
    known = known._replace(
        filters={1: MemoryFilter(everything.to_bytes())},
        second_filters=known.second_filters if second else {},
    )
    stored = [row.event_id.bytes for row in await ingest.sql("SELECT event_id FROM events")]
    ids = HashedIds(b"".join([bytes(16), stored[0], b"\xff" * 16, *stored[1:]]))
    assert known.places(ids, range(5)) == {1: [1, 3, 4] if second else [0, 1, 2, 3, 4]}


async def test_filters_that_are_not_to_stay_in_memory_lie_in_files(start: Start) -> None:
    """Also those of a replica that starts later; what they answer is the same."""
    one = await start(key_filters_memory_bytes_max=0)
    for key in "abc":
        await one.record(event(key))
        await one.rotate()
    await one.closed_segments(filtered=True)
    for replica in (one, await start(key_filters_memory_bytes_max=0)):
        known = await replica.storage.segments.refresh()
        assert known.unfiltered == []
        assert [each.resident_bytes for each in known.filters.values()] == [0, 0, 0]
        assert await replica.statuses(*map(event, "abc")) == [DUPLICATE] * 3
    assert await one.statuses(event("d")) == [ACCEPTED]


async def test_the_newest_filters_stay_in_memory(start: Start) -> None:
    one = await start()
    for key in "abc":
        await one.record(event(key))
        await one.rotate()
    await one.closed_segments(filtered=True)
    known = await one.storage.segments.refresh()
    sizes = [known.filters[segment].size_bytes for segment in (1, 2, 3)]
    two = await start(key_filters_memory_bytes_max=sizes[1] + sizes[2])
    kept = (await two.storage.segments.refresh()).filters
    assert [kept[segment].resident_bytes for segment in (1, 2, 3)] == [0, *sizes[1:]]


async def test_filters_stay_in_memory_where_no_file_can_be_written(
    start: Start, tmp_path: Path
) -> None:
    ingest = await start(
        key_filters_memory_bytes_max=0, key_filters_directory=str(tmp_path / "missing")
    )
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True)
    known = await ingest.storage.segments.refresh()
    assert known.unfiltered == []
    assert known.filters[1].resident_bytes == known.filters[1].size_bytes > 0
    assert await ingest.statuses(event("a"), event("b")) == [DUPLICATE, ACCEPTED]


async def test_what_was_noted_is_forgotten_once_the_filter_is_there(ingest: Instance) -> None:
    """It is as large as the filter itself."""
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True)
    await ingest.storage.segments.refresh()
    assert ingest.storage.segments._noted == {}
    assert await ingest.statuses(event("a"), event("b")) == [DUPLICATE, ACCEPTED]


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


async def test_indexes_wait_for_the_filter_of_another_segment(
    start: Start, ingest_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start(), await start()
    await first.record(event("a"))
    await first.rotate()
    await first.closed_segments(indexed=True)
    keeper = SegmentKeeper(ingest_url, first.storage.segments)
    await keeper._has_turn()
    assert await keeper._make_indexes(1, is_late=True)
    # Its keys are read only after all that time.
    monkeypatch.setattr(segment_keeper, "PARTS_WAIT_S", WAIT_S)
    await second.record(event("b"))
    second.storage.segments._noted.clear()
    await first.rotate()
    assert not await keeper._make_indexes(1, is_late=True)
    keeper._close()


async def test_a_segment_of_an_older_version_gets_its_second_filter(ingest: Instance) -> None:
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(indexed=True)
    second = "SELECT second_key_filter FROM event_segments WHERE segment = 1"
    [before] = await ingest.sql(second)
    await ingest.sql("UPDATE event_segments SET second_key_filter = NULL WHERE segment = 1")

    async def made_again() -> bool:
        return await ingest.sql(second) == [before]

    await until("the second filter", made_again, WAIT_S)
    assert before.second_key_filter is not None


async def test_indexes_for_searching_wait_while_many_events_come(
    ingest: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not for ever."""
    looks = 0
    look = asyncio.Event()

    def events_taken() -> int:
        nonlocal looks
        looks += 1
        look.set()
        return looks * 1_000_000

    async def looked(times: int) -> None:
        for _ in range(times):
            look.clear()
            await asyncio.wait_for(look.wait(), WAIT_S)

    monkeypatch.setattr(ingest.storage.keeper, "_events_taken", events_taken)
    await looked(1)
    await ingest.record(event("a"))
    await ingest.rotate()
    await ingest.closed_segments(filtered=True)
    await looked(2)
    unindexed = (
        "SELECT count(*) FROM event_segments "
        "WHERE segment = 1 AND index_time IS NULL AND second_key_filter IS NULL"
    )
    assert await ingest.sql(unindexed) == [(1,)]
    monkeypatch.setattr(segment_keeper, "INDEXES_WAIT_MAX", timedelta(0))
    assert await ingest.closed_segments(filtered=True, indexed=True) == [1]
