"""The SQL of rollups. Each function works inside the caller's transaction; how the locks make it
exact is told in migration 0005.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.spans import day_start
from services.aggregator.tables import rollup_state


@dataclass(frozen=True, slots=True)
class RollupState:
    """The row of rollup_state."""

    kept_until: datetime
    rolled_until: datetime
    rolled_series_id: int


async def read_state(connection: AsyncConnection) -> RollupState:
    """How far rollups are."""
    columns = rollup_state.c
    row = (
        await connection.execute(
            select(columns.kept_until, columns.rolled_until, columns.rolled_series_id)
        )
    ).one()
    return RollupState(*row)


_ALONE = text("SELECT pg_advisory_xact_lock(5, 1)")
_KEEP_UNTIL = text("""
UPDATE rollup_state SET kept_until = :until
WHERE kept_until = rolled_until AND kept_until < :until
""")


async def keep_until(connection: AsyncConnection, until: datetime) -> None:
    """From here on whoever writes a bucket before `until` writes its rollups too.

    Waits for everybody who has written buckets without. Nothing is done while what is kept has not
    been rolled up.
    """
    await connection.execute(_ALONE)
    await connection.execute(_KEEP_UNTIL, {"until": until})


_LOCK_ROLLUPS = text("SELECT pg_advisory_xact_lock(5, 2)")
_ROLL_UP_NEXT = text("""
WITH part AS (
    SELECT series_id FROM series WHERE series_id > :after ORDER BY series_id LIMIT :limit
)
SELECT max(part.series_id) AS last_id, roll_up(array_agg(part.series_id),
    array_agg(CAST(:first_day AS timestamptz)), array_agg(CAST(:last_day AS timestamptz)))
FROM part HAVING count(*) > 0
""")
_NOTE_SERIES = text("UPDATE rollup_state SET rolled_series_id = :series_id")
_NOTE_ROLLED = text("UPDATE rollup_state SET rolled_until = kept_until, rolled_series_id = 0")


async def roll_up_next(connection: AsyncConnection, limit: int) -> bool:
    """Roll up what is kept of the next `limit` series; whether anything was left to do."""
    await connection.execute(_LOCK_ROLLUPS)
    state = await read_state(connection)
    if state.rolled_until == state.kept_until:
        return False
    values = {
        "after": state.rolled_series_id,
        "limit": limit,
        "first_day": day_start(state.rolled_until),
        "last_day": day_start(state.kept_until),
    }
    done = (await connection.execute(_ROLL_UP_NEXT, values)).one_or_none()
    if done is None:
        await connection.execute(_NOTE_ROLLED)
    else:
        await connection.execute(_NOTE_SERIES, {"series_id": done.last_id})
    return True
