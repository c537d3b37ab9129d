"""SQL of how endpoints are doing: since when they fail, how long they are left alone.

Healthy endpoints cost nothing here: their rows are not written. Rows are locked in the order of
their ids, so that workers with the same endpoints do not deadlock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import TenantKey
from services.notifier.pace import (
    DISABLE_AFTER,
    FAILURE_GAP_MAX,
    THROTTLE_FIRST_S,
    THROTTLE_S_MAX,
    THROTTLE_STEPS_MAX,
)


@dataclass(frozen=True, slots=True)
class Note:
    """What came of some attempts at one endpoint.

    `failure_time` is when the last one that failed began; `rest_s` how long it is to be left alone
    at least, None when it did not throttle.
    """

    endpoint_id: str
    succeeded: bool
    failure_time: datetime | None
    rest_s: float | None
    gone: bool


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that has just been disabled, and why: "failing" or "gone"."""

    endpoint_id: str
    tenant: TenantKey
    reason: str
    failing_since: datetime | None


# A step up the pauses needs the pause before to be over: what was in flight together counts once.
_NOTE = text(
    """
WITH notes AS (
    SELECT *, CAST(:now AS timestamptz) AS now, CAST(:first_s AS float8) AS first_s,
        CAST(:rest_s_max AS float8) AS rest_s_max
    FROM unnest(
        CAST(:ids AS text[]), CAST(:succeeded AS bool[]), CAST(:failure_times AS timestamptz[]),
        CAST(:rests_s AS float8[])
    ) AS n (id, succeeded, failure_time, rest_s)
), locked AS (
    SELECT e.id FROM endpoints e JOIN notes n ON n.id = e.id
    WHERE n.failure_time IS NOT NULL OR e.failing_since IS NOT NULL OR e.throttle_step > 0
    ORDER BY e.id FOR NO KEY UPDATE OF e
)
UPDATE endpoints e SET
    failing_since = CASE
        WHEN n.succeeded THEN NULL
        WHEN e.last_failure_time >= n.failure_time - CAST(:gap_max AS interval) THEN e.failing_since
        ELSE n.failure_time END,
    last_failure_time = CASE WHEN NOT n.succeeded THEN n.failure_time END,
    throttle_step = CASE
        WHEN n.rest_s IS NOT NULL AND e.throttle_until > n.now THEN e.throttle_step
        WHEN n.rest_s IS NOT NULL THEN least(e.throttle_step + 1, CAST(:steps_max AS int))
        WHEN n.succeeded THEN 0
        ELSE e.throttle_step END,
    throttle_until = CASE
        WHEN n.rest_s IS NOT NULL AND e.throttle_until > n.now
            THEN greatest(e.throttle_until, n.now + n.rest_s * interval '1 second')
        WHEN n.rest_s IS NOT NULL THEN n.now + interval '1 second' * greatest(
            n.rest_s, least(n.first_s * power(2, e.throttle_step), n.rest_s_max))
        WHEN n.succeeded THEN NULL
        ELSE e.throttle_until END
FROM notes n JOIN locked l ON l.id = n.id
WHERE e.id = n.id
"""
)

_DISABLE = text(
    """
UPDATE endpoints e SET
    enabled = false, disable_time = CAST(:now AS timestamptz),
    disabled_reason = CASE WHEN e.id = ANY(CAST(:gone_ids AS text[])) THEN 'gone'
        ELSE 'failing' END
FROM (
    SELECT id FROM endpoints
    WHERE id = ANY(CAST(:ids AS text[])) AND enabled
        AND (id = ANY(CAST(:gone_ids AS text[]))
            OR last_failure_time - failing_since >= CAST(:after AS interval))
    ORDER BY id FOR NO KEY UPDATE
) due
WHERE e.id = due.id
RETURNING e.id, e.organization_id, e.mode, e.disabled_reason, e.failing_since
"""
)


async def note(
    connection: AsyncConnection,
    notes: Sequence[Note],
    now: datetime,
    *,
    disable_after: timedelta = DISABLE_AFTER,
) -> list[Disabled]:
    """Write down how endpoints are doing; at most one note of each. Returns those it disabled."""
    ids = [each.endpoint_id for each in notes]
    await connection.execute(
        _NOTE,
        {
            "ids": ids,
            "succeeded": [each.succeeded for each in notes],
            "failure_times": [each.failure_time for each in notes],
            "rests_s": [each.rest_s for each in notes],
            "now": now,
            "gap_max": FAILURE_GAP_MAX,
            "steps_max": THROTTLE_STEPS_MAX,
            "first_s": THROTTLE_FIRST_S,
            "rest_s_max": THROTTLE_S_MAX,
        },
    )
    if not any(each.failure_time for each in notes):
        return []
    rows = await connection.execute(
        _DISABLE,
        {
            "ids": ids,
            "gone_ids": [each.endpoint_id for each in notes if each.gone],
            "now": now,
            "after": disable_after,
        },
    )
    return [
        Disabled(
            row.id, TenantKey(row.organization_id, row.mode), row.disabled_reason, row.failing_since
        )
        for row in rows
    ]
