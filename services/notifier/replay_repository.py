"""SQL of replays of many deliveries, a page at a time, the oldest first.

A delivery that is pending keeps its place, and one replayed a moment ago is left out: the same
call twice sends nothing twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.ids import new_id
from services.notifier.domain import REPLAY_PAUSE, Endpoint
from services.notifier.filters import TEST_EVENT_TYPE, known_types

# (time, id) of a page's last row.
Place = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Page:
    """Up to `rows_max` rows between `after` (the last place before, or a time and "") and `to`."""

    after: Place
    to_time: datetime
    rows_max: int

    @property
    def values(self) -> dict[str, object]:
        """What the statements here take."""
        return {
            "after_time": self.after[0],
            "after_id": self.after[1],
            "to_time": self.to_time,
            "rows_max": self.rows_max,
        }


_REPLAY = text(
    """
WITH page AS (
    SELECT id, create_time FROM deliveries
    WHERE endpoint_id = :endpoint_id AND status = ANY(CAST(:statuses AS text[]))
        AND create_time < :to_time AND (create_time, id) > (:after_time, CAST(:after_id AS text))
        AND (replay_time IS NULL OR replay_time <= CAST(:recent AS timestamptz))
    ORDER BY create_time, id LIMIT :rows_max
    FOR NO KEY UPDATE
)
UPDATE deliveries d SET status = 'pending', schedule_step = 0,
    next_attempt_time = CAST(:now AS timestamptz), replay_time = CAST(:now AS timestamptz)
FROM page WHERE d.id = page.id
RETURNING d.create_time, d.id
"""
)


async def replay(
    connection: AsyncConnection,
    endpoint_id: str,
    statuses: Sequence[str],
    page: Page,
    now: datetime,
) -> list[Place]:
    """Make a page of deliveries in these statuses due now; returns their places, in order."""
    rows = await connection.execute(
        _REPLAY,
        {
            "endpoint_id": endpoint_id,
            "statuses": list(statuses),
            **page.values,
            "recent": now - REPLAY_PAUSE,
            "now": now,
        },
    )
    return sorted((row.create_time, row.id) for row in rows)


_MISSED = text(
    """
SELECT w.take_time, w.id FROM webhook_events w
WHERE w.organization_id = :organization_id AND w.mode = :mode
    AND w.type = ANY(CAST(:types AS text[]))
    AND w.take_time < :to_time AND (w.take_time, w.id) > (:after_time, CAST(:after_id AS text))
    AND NOT EXISTS (
        SELECT FROM deliveries d WHERE d.event_id = w.id AND d.endpoint_id = :endpoint_id)
ORDER BY w.take_time, w.id LIMIT :rows_max
"""
)
_DELIVER = text(
    """
INSERT INTO deliveries (id, organization_id, mode, event_id, endpoint_id, status, attempt_count,
    schedule_step, next_attempt_time, create_time)
SELECT m.id, :organization_id, :mode, m.event_id, :endpoint_id, 'pending', 0, 0,
    CAST(:now AS timestamptz), CAST(:now AS timestamptz)
FROM unnest(CAST(:ids AS text[]), CAST(:event_ids AS text[])) AS m (id, event_id)
ON CONFLICT (event_id, endpoint_id) DO NOTHING
"""
)


async def deliver_missed(
    connection: AsyncConnection, endpoint: Endpoint, page: Page, now: datetime
) -> tuple[int, list[Place]]:
    """Make deliveries of a page of events that the endpoint takes now but never got.

    Returns how many it made, and the events' places, in order. Test events stay where they were.
    """
    types = [each for each in known_types(endpoint.event_types) if each != TEST_EVENT_TYPE]
    of = {
        "organization_id": endpoint.tenant.organization_id,
        "mode": endpoint.tenant.mode,
        "endpoint_id": endpoint.id,
    }
    rows = await connection.execute(_MISSED, {**of, **page.values, "types": types})
    places = [(row.take_time, row.id) for row in rows]
    if not places:
        return 0, []
    new_ids = [new_id("whd") for _ in places]
    event_ids = [event_id for _, event_id in places]
    values = {**of, "ids": new_ids, "event_ids": event_ids, "now": now}
    made = await connection.execute(_DELIVER, values)
    return made.rowcount, places
