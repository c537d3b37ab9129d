"""Raw events go when their organization no longer wants them, and not before."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from services.ingest.domain import Status
from services.ingest.retention import Retention
from tests.integration.ingest.instance import ACME, OTHER, WAIT_S, Instance, event
from tests.waiting import until


class Wanted:
    """Stands in for accounts."""

    def __init__(self, **days: int) -> None:
        tenants = {"acme": ACME, "other": OTHER}
        self._kept = {
            UUID(bytes=tenants[name].organization): timedelta(days=count)
            for name, count in days.items()
        }

    async def ask(self) -> Mapping[UUID, timedelta]:
        return self._kept


@pytest.fixture
async def connection(ingest_url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(ingest_url)
    yield connection
    await connection.close()


async def closed_ago(ingest: Instance, days: int, *, applied: bool = True) -> None:
    """Store two events of acme and one of another organization in a segment closed so long ago."""
    await ingest.record(event("a"), event("b"))
    await ingest.record(event("a"), tenant=OTHER)
    if applied:
        await ingest.sql("UPDATE event_batches SET apply_time = now()")
    segment = await ingest.rotate()
    await ingest.closed_segments(indexed=True)
    await ingest.sql(
        f"UPDATE event_segments SET close_time = now() - interval '{days} days' "
        f"WHERE segment = {segment}"
    )


async def owners(ingest: Instance) -> list[bytes]:
    rows = await ingest.sql("SELECT organization_id FROM events ORDER BY event_id")
    return [row.organization_id.bytes for row in rows]


async def test_nothing_goes_before_its_time(ingest: Instance, connection: Any) -> None:
    await closed_ago(ingest, 99)
    await Retention(Wanted(acme=100, other=400)).enforce(connection)
    assert await ingest.count() == 3


async def test_one_organizations_events_go_and_the_others_stay(
    ingest: Instance, connection: Any
) -> None:
    await closed_ago(ingest, 101)
    await Retention(Wanted(acme=100, other=400)).enforce(connection)
    assert await owners(ingest) == [OTHER.organization]
    assert await ingest.statuses(event("a"), tenant=OTHER) == [Status.DUPLICATE]


async def test_a_segment_of_which_something_went_still_gets_its_second_filter(
    ingest: Instance, connection: Any
) -> None:
    """An older version made none when the segment was closed."""
    await closed_ago(ingest, 101)
    await Retention(Wanted(acme=100, other=400)).enforce(connection)
    await ingest.sql("UPDATE event_segments SET second_key_filter = NULL WHERE segment = 1")

    async def made() -> bool:
        [(there,)] = await ingest.sql(
            "SELECT second_key_filter IS NOT NULL FROM event_segments WHERE segment = 1"
        )
        return bool(there)

    await until("the second filter", made, WAIT_S)
    await ingest.storage.segments.refresh()
    assert await ingest.statuses(event("a"), tenant=OTHER) == [Status.DUPLICATE]


async def test_what_nobody_wants_goes_with_its_segment_and_batches(
    ingest: Instance, connection: Any
) -> None:
    await closed_ago(ingest, 401)
    await ingest.record(event("new"))
    await Retention(Wanted(acme=100)).enforce(connection)  # others: 400 days
    assert await ingest.count() == 1
    assert await ingest.closed_segments() == []
    [(batches,)] = await ingest.sql("SELECT count(*) FROM event_batches")
    assert batches == 1
    # This process does not know yet that the segment is gone.
    assert await ingest.statuses(event("a"), event("new")) == [Status.ACCEPTED, Status.DUPLICATE]


async def test_what_is_not_aggregated_yet_stays(ingest: Instance, connection: Any) -> None:
    await closed_ago(ingest, 500, applied=False)
    await Retention(Wanted(acme=100, other=100)).enforce(connection)
    assert await ingest.count() == 3


async def test_the_database_keeps_all_events_of_the_last_90_days(
    ingest: Instance, connection: Any
) -> None:
    """Whatever retention is told."""
    await closed_ago(ingest, 89)
    with pytest.raises(DBAPIError, match="never changed or deleted"):
        await ingest.sql("DELETE FROM events_1")
    with pytest.raises(DBAPIError, match="never deleted"):
        await ingest.sql("DELETE FROM event_batches")
    await Retention(Wanted(acme=1, other=1)).enforce(connection)
    assert await ingest.count() == 3


async def test_the_open_segment_is_kept_however_old(ingest: Instance, connection: Any) -> None:
    await ingest.record(event("a"))
    await ingest.sql("UPDATE event_segments SET open_time = now() - interval '900 days'")
    await Retention(Wanted(acme=100)).enforce(connection)
    assert await ingest.count() == 1


async def test_writers_do_not_wait_for_it(ingest: Instance, connection: Any) -> None:
    await closed_ago(ingest, 101)
    transaction = connection.transaction()
    await transaction.start()
    await Retention(Wanted(acme=100, other=400)).enforce(connection)
    # Not committed: all that it has locked is locked still.
    assert await ingest.statuses(event("new"), event("a")) == [Status.ACCEPTED, Status.DUPLICATE]
    await transaction.rollback()
