"""SQL of maintenance: a bounded number of rows at a time, skipping what is in use."""

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

ENDPOINTS_LOOKED_AT_MAX = 10_000

# One that was replayed lately is recent, whenever it was made.
_DELIVERIES = text(
    """
WITH old AS (
    SELECT id FROM deliveries
    WHERE id < :before_id AND status <> 'pending'
        AND coalesce(replay_time, create_time) < :before
    ORDER BY id LIMIT :rows_max FOR UPDATE SKIP LOCKED
), attempts AS (
    DELETE FROM delivery_attempts WHERE delivery_id IN (SELECT id FROM old)
)
DELETE FROM deliveries WHERE id IN (SELECT id FROM old)
"""
)
_EVENTS = text(
    """
DELETE FROM webhook_events w USING (
    SELECT organization_id, mode, id FROM webhook_events e
    WHERE take_time < :before
        AND NOT EXISTS (SELECT FROM deliveries d WHERE d.event_id = e.id)
    ORDER BY take_time LIMIT :rows_max FOR UPDATE SKIP LOCKED
) old
WHERE (w.organization_id, w.mode, w.id) = (old.organization_id, old.mode, old.id)
"""
)
# A loose scan, as the claim's: a join would read all deliveries when few endpoints are disabled.
_ENDED = text(
    """
WITH RECURSIVE visited (endpoint_id, place) AS (
    (SELECT endpoint_id, 1 FROM deliveries WHERE status = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM deliveries d
            WHERE d.status = 'pending' AND d.endpoint_id > v.endpoint_id
            ORDER BY d.endpoint_id LIMIT 1), v.place + 1
    FROM visited v WHERE v.endpoint_id IS NOT NULL AND v.place < :endpoints_max
), ended AS MATERIALIZED (
    SELECT e.id, CASE WHEN e.delete_time IS NULL THEN 'failed' ELSE 'dropped' END AS status
    FROM visited v JOIN endpoints e ON e.id = v.endpoint_id WHERE NOT e.enabled
)
UPDATE deliveries d SET status = due.status, next_attempt_time = NULL, lease_until = NULL
FROM (
    SELECT p.id, ended.status FROM ended CROSS JOIN LATERAL (
        SELECT id FROM deliveries WHERE endpoint_id = ended.id AND status = 'pending'
        ORDER BY next_attempt_time LIMIT :rows_max FOR UPDATE SKIP LOCKED
    ) p LIMIT :rows_max
) due
WHERE d.id = due.id
"""
)
_SECRETS = text(
    """
DELETE FROM endpoint_secrets WHERE id IN (
    SELECT id FROM endpoint_secrets WHERE expire_time < :before LIMIT :rows_max)
"""
)
_INBOX = text(
    """
DELETE FROM inbox WHERE message_id IN (
    SELECT message_id FROM inbox WHERE receive_time < :before
    ORDER BY receive_time LIMIT :rows_max FOR UPDATE SKIP LOCKED)
"""
)


async def prune_deliveries(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget deliveries that are done and older, with their attempts; returns how many."""
    # Their ids are UUIDv7 (RFC 9562, 5.7): 48 bits of milliseconds come first, so the primary key
    # finds the old ones.
    before_id = f"whd_{int(before.timestamp() * 1000):012x}"
    values = {"before": before, "before_id": before_id, "rows_max": rows_max}
    return (await connection.execute(_DELIVERIES, values)).rowcount


async def end_pending_of_disabled(
    connection: AsyncConnection, _before: datetime, rows_max: int
) -> int:
    """End what is still pending for endpoints that are disabled or deleted; returns how much.

    Disabling ends the first 10,000 (repository.end_pending); this is for larger backlogs.
    """
    values = {"rows_max": rows_max, "endpoints_max": ENDPOINTS_LOOKED_AT_MAX}
    return (await connection.execute(_ENDED, values)).rowcount


async def prune_events(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget events that are older and of which no delivery is left; returns how many."""
    values = {"before": before, "rows_max": rows_max}
    return (await connection.execute(_EVENTS, values)).rowcount


async def prune_secrets(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget signing keys that have expired; returns how many."""
    values = {"before": before, "rows_max": rows_max}
    return (await connection.execute(_SECRETS, values)).rowcount


async def prune_inbox(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget which messages were received before; returns how many."""
    values = {"before": before, "rows_max": rows_max}
    return (await connection.execute(_INBOX, values)).rowcount


# As the claim: a loose scan that costs as much as there are endpoints with something pending.
_MOST_OVERDUE = text(
    """
WITH RECURSIVE visited (endpoint_id, due_time, place) AS (
    (SELECT endpoint_id, next_attempt_time, 1 FROM deliveries
     WHERE status = 'pending' ORDER BY endpoint_id, next_attempt_time LIMIT 1)
    UNION ALL
    SELECT n.endpoint_id, n.next_attempt_time, v.place + 1
    FROM visited v CROSS JOIN LATERAL (
        SELECT endpoint_id, next_attempt_time FROM deliveries d
        WHERE d.status = 'pending' AND d.endpoint_id > v.endpoint_id
        ORDER BY d.endpoint_id, d.next_attempt_time LIMIT 1
    ) n
    WHERE v.place < :endpoints_max
)
SELECT min(due_time) FROM visited
"""
)
_STATES = text(
    """
SELECT count(*) FILTER (WHERE enabled AND failing_since IS NULL) AS healthy,
    count(*) FILTER (WHERE enabled AND failing_since IS NOT NULL) AS failing,
    count(*) FILTER (WHERE enabled AND throttle_until > CAST(:now AS timestamptz)) AS throttled,
    count(*) FILTER (WHERE NOT enabled) AS disabled
FROM endpoints WHERE delete_time IS NULL
"""
)


async def most_overdue(connection: AsyncConnection) -> datetime | None:
    """When the delivery that has been due the longest was due; None when nothing is pending."""
    found = await connection.execute(_MOST_OVERDUE, {"endpoints_max": ENDPOINTS_LOOKED_AT_MAX})
    time: datetime | None = found.scalar_one()
    return time


async def endpoint_states(connection: AsyncConnection, now: datetime) -> dict[str, int]:
    """How many endpoints are healthy, failing, throttled (some of both), disabled."""
    return dict((await connection.execute(_STATES, {"now": now})).mappings().one())
