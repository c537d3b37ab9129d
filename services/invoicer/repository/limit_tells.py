"""Which subscriptions' limits of usage aggregator has to be told."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import TenantKey


@dataclass(frozen=True, slots=True)
class LimitTell:
    """A subscription, as of a revision of its limits."""

    tenant: TenantKey
    subscription_id: str
    revision: int


_CLAIM = text("""
WITH due AS (
    SELECT organization_id, mode, subscription_id FROM limit_tells WHERE due_time <= :now
    ORDER BY due_time LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE limit_tells SET due_time = :until FROM due
WHERE (limit_tells.organization_id, limit_tells.mode, limit_tells.subscription_id)
    = (due.organization_id, due.mode, due.subscription_id)
RETURNING limit_tells.*
""")
_POSTPONE = text("""
UPDATE limit_tells SET due_time = :due_time
WHERE (organization_id, mode, subscription_id) = (:organization_id, :mode, :subscription_id)
    AND revision = :revision
""")
_DELETE = text("""
DELETE FROM limit_tells
WHERE (organization_id, mode, subscription_id) = (:organization_id, :mode, :subscription_id)
    AND revision = :revision
""")


async def claim(
    connection: AsyncConnection, now: datetime, until: datetime, limit: int
) -> list[LimitTell]:
    """Up to `limit` that are due; nobody else takes them before `until`."""
    rows = await connection.execute(_CLAIM, {"now": now, "until": until, "limit": limit})
    return [
        LimitTell(TenantKey(row.organization_id, row.mode), row.subscription_id, row.revision)
        for row in rows
    ]


async def told(connection: AsyncConnection, tell: LimitTell, due_time: datetime | None) -> None:
    """It was told as of this revision; again at `due_time`, or (None) never. What has changed
    meanwhile stays due.
    """
    values = {
        **tell.tenant._asdict(),
        "subscription_id": tell.subscription_id,
        "revision": tell.revision,
    }
    if due_time is None:
        await connection.execute(_DELETE, values)
    else:
        await connection.execute(_POSTPONE, {**values, "due_time": due_time})
