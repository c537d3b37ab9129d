"""All SQL of test clocks. Each function works inside the caller's transaction."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.accounts.domain import ClockTime
from services.accounts.tables import test_clocks


async def put_clock(
    connection: AsyncConnection, organization_id: str, clock_id: str, clock: ClockTime
) -> bool:
    """Store what a clock shows; False when as much is known already."""
    values = {
        "customer_id": clock.customer_id,
        "clock_time": clock.time,
        "revision": clock.revision,
    }
    statement = upsert(test_clocks).values(id=clock_id, organization_id=organization_id, **values)
    changed = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["id"],
            set_=values,
            where=(test_clocks.c.revision < clock.revision)
            & (test_clocks.c.organization_id == organization_id),
        )
    )
    return changed.rowcount == 1


async def running_clocks(
    connection: AsyncConnection, organization_id: str
) -> tuple[ClockTime, ...]:
    """The organization's clocks that have not ended."""
    query = select(test_clocks).where(
        test_clocks.c.organization_id == organization_id, test_clocks.c.clock_time.is_not(None)
    )
    return tuple(
        ClockTime(row.customer_id, row.clock_time, row.revision)
        for row in await connection.execute(query)
    )
