"""What went is noted with its going, so that a list of counted events tells that some are gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from cli.embedded import EmbeddedPostgres
from services.ingest import retention
from services.ingest.counted.repository import Boundary, CountedFilter
from services.ingest.counted.service import CountedEvents
from services.ingest.domain import Tenant
from services.ingest.retention import Retention
from services.kit.database import sqlalchemy_url
from services.kit.migrations import migrate
from tests.conftest import empty_database
from tests.integration.ingest.instance import ACME, ACME_TEST, OTHER, Instance, event
from tests.integration.ingest.test_retention import Wanted
from tests.migrating import migrate_to
from tests.waiting import until

HOUR = timedelta(hours=1)
QUARTER = timedelta(minutes=15)
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=3)
NOTE = "SELECT note_event_drop(:whose, 1::smallint, {0}, {0}) "


@pytest.fixture
async def connection(ingest_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(ingest_url)
    yield connection
    await connection.close()


async def record(ingest: Instance, *times: datetime, tenant: Tenant = ACME) -> None:
    """An event of customer "c" at each of these times."""
    await ingest.record(
        *(event(customer_id="c", at_micros=int(time.timestamp() * 1e6)) for time in times),
        tenant=tenant,
    )


async def close_long_ago(ingest: Instance) -> int:
    """Close the open segment as if it had been 101 days ago, all of it applied."""
    await ingest.sql("UPDATE event_batches SET apply_time = now() WHERE apply_time IS NULL")
    segment = await ingest.rotate()
    await ingest.closed_segments(indexed=True)
    await ingest.sql(
        "UPDATE event_segments SET close_time = now() - interval '101 days' "
        f"WHERE segment = {segment}"
    )
    return segment


async def dropped(ingest: Instance, start: datetime, end: datetime, tenant: Tenant = ACME) -> bool:
    """Whether a list of what was counted in [start, end) tells that some is gone."""
    until = Boundary(datetime.now(UTC) + HOUR, ())
    wanted = CountedFilter(tenant, "API_CALL", "c", start, end, until, None)
    page = await CountedEvents(ingest.database).list_counted_events(wanted, 0, "")
    return page.dropped


@pytest.mark.parametrize("whole", [False, True])
async def test_pages_tell_that_events_of_their_range_are_gone(
    ingest: Instance, connection: Any, whole: bool
) -> None:
    """Whether their segment was dropped, or they were deleted out of one that somebody wants."""
    await record(ingest, NOON, NOON + HOUR)
    await record(ingest, NOON - 2 * HOUR, tenant=ACME_TEST)
    await record(ingest, NOON, tenant=OTHER)
    await close_long_ago(ingest)
    await record(ingest, NOON + 2 * HOUR)
    assert not await dropped(ingest, NOON - HOUR, NOON + 2 * HOUR)
    await Retention(Wanted(acme=100, other=100 if whole else 400)).enforce(connection)
    assert await ingest.count() == (1 if whole else 2)
    # To the quarter of an hour: the last of them happened at NOON + HOUR.
    assert await dropped(ingest, NOON - HOUR, NOON + QUARTER)
    assert await dropped(ingest, NOON + HOUR, NOON + 2 * HOUR)
    assert not await dropped(ingest, NOON - HOUR, NOON)
    assert not await dropped(ingest, NOON + HOUR + QUARTER, NOON + 3 * HOUR)
    assert not await dropped(ingest, NOON + HOUR, NOON)
    # Whose they were.
    assert not await dropped(ingest, NOON, NOON + HOUR, ACME_TEST)
    assert await dropped(ingest, NOON - 2 * HOUR, NOON, ACME_TEST)
    assert await dropped(ingest, NOON, NOON + HOUR, OTHER) == whole


async def test_what_happened_between_drops_is_not_gone(ingest: Instance, connection: Any) -> None:
    for time in (NOON, NOON + 3 * HOUR):
        await record(ingest, time)
        await close_long_ago(ingest)
    await Retention(Wanted(acme=100)).enforce(connection)
    assert await ingest.count() == 0
    assert not await dropped(ingest, NOON + QUARTER, NOON + 3 * HOUR)
    assert await dropped(ingest, NOON + 3 * HOUR, NOON + 4 * HOUR)


async def test_a_drop_that_does_not_happen_is_not_noted(ingest: Instance, connection: Any) -> None:
    await record(ingest, NOON)
    segment = await close_long_ago(ingest)
    async with ingest.database.transaction() as reading:
        await reading.execute(text(f"LOCK TABLE events_{segment} IN ACCESS SHARE MODE"))
        await Retention(Wanted(acme=100)).enforce(connection)
    assert (await ingest.count(), await dropped(ingest, NOON, NOON + HOUR)) == (1, False)
    await Retention(Wanted(acme=100)).enforce(connection)
    assert (await ingest.count(), await dropped(ingest, NOON, NOON + HOUR)) == (0, True)


async def test_whatever_breaks_off_each_event_is_there_or_noted(
    ingest: Instance, connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the process is killed between two steps of deleting."""
    monkeypatch.setattr(retention, "DELETED_AT_A_TIME", 1)
    monkeypatch.setattr(retention, "REST_S", 3_600.0)
    hours = [NOON + number * HOUR for number in range(3)]
    await record(ingest, *hours)
    await record(ingest, NOON, tenant=OTHER)
    await close_long_ago(ingest)
    killed = asyncio.create_task(Retention(Wanted(acme=100, other=400)).enforce(connection))

    async def begun() -> bool:
        return await ingest.count() < 4

    await until("an event to go", begun, 10.0)
    connection.terminate()
    killed.cancel()
    with suppress(asyncio.CancelledError):
        await killed
    rows = await ingest.sql(
        "SELECT event_time FROM events WHERE organization_id = :id",
        id=UUID(bytes=ACME.organization),
    )
    there = {row.event_time for row in rows}
    assert len(there) == 2
    gone = {hour for hour in hours if await dropped(ingest, hour, hour + HOUR)}
    assert gone == set(hours) - there
    assert not await dropped(ingest, NOON, NOON + HOUR, OTHER)


async def test_many_pieces_become_few_without_forgetting_one(ingest: Instance) -> None:
    """Of 501 pieces the older half becomes one."""
    whose = UUID(bytes=ACME.organization)
    day = "timestamptz '2000-01-01Z' + number * interval '1 day'"
    many = NOTE.format(day) + "FROM generate_series(1, {}) AS number"
    pieces = "SELECT count(*) FROM event_drops, unnest(event_times)"
    await ingest.sql(many.format(500), whose=whose)
    assert [tuple(row) for row in await ingest.sql(pieces)] == [(500,)]
    await ingest.sql(many.format(501), whose=whose)
    assert [tuple(row) for row in await ingest.sql(pieces)] == [(250,)]
    series = "FROM event_drops, generate_series(1, 501) AS number"
    kept = await ingest.sql(f"SELECT count(*) {series} WHERE event_times @> ({day})")
    assert [tuple(row) for row in kept] == [(501,)]
    oldest = datetime(2000, 1, 1, tzinfo=UTC)
    assert await dropped(ingest, oldest + 1.5 * timedelta(days=1), oldest + 1.6 * timedelta(days=1))
    late = oldest + 400.5 * timedelta(days=1)
    assert not await dropped(ingest, late, late + HOUR)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM event_drops",
        "TRUNCATE event_drops",
        "UPDATE event_drops SET mode = 2",
        "UPDATE event_drops SET event_times = event_times - '{[2020-01-01Z,2020-01-02Z)}'",
    ],
)
async def test_what_was_noted_is_never_forgotten(ingest: Instance, statement: str) -> None:
    note = NOTE.format("timestamptz '2020-01-01T12:00Z'")
    await ingest.sql(note, whose=UUID(bytes=ACME.organization))
    with pytest.raises(DBAPIError, match="never forgotten"):
        await ingest.sql(statement)


@asynccontextmanager
async def upgraded(postgres: EmbeddedPostgres, before: list[str]) -> AsyncIterator[AsyncEngine]:
    """A database in which all this was done before drops were noted."""
    async with empty_database(postgres) as url:
        engine = create_async_engine(sqlalchemy_url(url), poolclass=NullPool)
        async with engine.begin() as connection:
            await connection.run_sync(migrate_to, "services.ingest", "0008")
        async with engine.begin() as connection:
            for statement in before:
                await connection.execute(text(statement))
        await migrate(url, "services.ingest")
        yield engine


@pytest.mark.parametrize(
    ("before", "live", "test"),
    [
        ([], None, None),
        (["UPDATE event_segments SET open_time = now() - interval '900 days'"], None, None),
        # It is older than organizations may want: some may have had theirs deleted.
        (
            ["SELECT rotate_event_segments(1, '2026-01-02T03:04Z')"],
            '{(,"2026-01-02 03:09:00+00"]}',
            "{(,)}",
        ),
        # Segments were dropped.
        (
            [
                "SELECT rotate_event_segments(1, '2026-01-02T03:04Z')",
                "DELETE FROM event_segments WHERE segment = 1",
                "DROP TABLE events_1",
            ],
            '{(,"2026-01-02 03:09:00+00"]}',
            "{(,)}",
        ),
    ],
)
async def test_what_went_before_drops_were_noted_is_not_known(
    postgres: EmbeddedPostgres, before: list[str], live: str | None, test: str | None
) -> None:
    async with upgraded(postgres, before) as engine, engine.begin() as connection:
        await connection.execute(text("SET LOCAL TimeZone = 'UTC'"))
        rows = await connection.execute(
            text("SELECT mode, event_times::text FROM event_drops ORDER BY mode")
        )
        noted = {row.mode: row.event_times for row in rows}
    assert (noted.get(1), noted.get(2)) == (live, test)


async def test_what_goes_out_of_a_segment_from_before_is_noted(postgres: EmbeddedPostgres) -> None:
    before = [
        "INSERT INTO events_1 (event_time, event_id, organization_id, batch_id, mode, amount, "
        "metric) VALUES ('2026-01-02T01:00Z', gen_random_uuid(), gen_random_uuid(), "
        "gen_random_uuid(), 1, 1, 'M')",
        "SELECT rotate_event_segments(1, '2026-01-02T03:04Z')",
    ]
    noted = text("SELECT count(*) FROM event_drops WHERE organization_id <> :all")
    async with upgraded(postgres, before) as engine, engine.begin() as connection:
        await connection.execute(text("DELETE FROM events_1"))
        assert await connection.scalar(noted, {"all": UUID(int=0)}) == 1


async def test_what_went_before_may_have_been_anybodys(ingest: Instance) -> None:
    await ingest.sql(NOTE.format("timestamptz '2020-01-01T12:00Z'"), whose=UUID(int=0))
    noon = datetime(2020, 1, 1, 12, tzinfo=UTC)
    for tenant in (ACME, OTHER):
        assert await dropped(ingest, noon, noon + HOUR, tenant)
        assert not await dropped(ingest, noon + HOUR, noon + 2 * HOUR, tenant)


async def test_an_older_program_notes_what_it_drops_too(ingest: Instance) -> None:
    """In a rolling upgrade: its statements are the same, and the database does it."""
    await record(ingest, NOON)
    segment = await close_long_ago(ingest)
    await ingest.sql(f"DELETE FROM events_{segment}")
    assert await dropped(ingest, NOON, NOON + HOUR)
