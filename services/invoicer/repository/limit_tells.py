"""Which subscriptions' limits of usage aggregator has to be told."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.repository.clocks import LATEST_NOW, now_of_customer
from services.kit.database import TenantKey


@dataclass(frozen=True, slots=True)
class LimitTell:
    """A subscription, as of a revision of its limits."""

    tenant: TenantKey
    subscription_id: str
    revision: int


_CLAIM = text(
    f"""
    WITH live AS (
        SELECT organization_id, mode, subscription_id FROM limit_tells
        WHERE mode = 'live' AND due_time <= :now AND pause_until <= :now
        ORDER BY due_time LIMIT :limit FOR UPDATE SKIP LOCKED
    ), test AS (
        SELECT t.organization_id, t.mode, t.subscription_id FROM limit_tells t
        JOIN subscriptions s ON (s.organization_id, s.mode, s.id)
            = (t.organization_id, t.mode, t.subscription_id)
        WHERE t.mode = 'test' AND t.due_time <= {LATEST_NOW}
            AND t.due_time <= {now_of_customer("s")} AND t.pause_until <= :now
        ORDER BY t.due_time LIMIT :limit FOR UPDATE OF t SKIP LOCKED
    )
    UPDATE limit_tells SET pause_until = :until
    FROM (SELECT * FROM live UNION ALL SELECT * FROM test) AS due
    WHERE (limit_tells.organization_id, limit_tells.mode, limit_tells.subscription_id)
        = (due.organization_id, due.mode, due.subscription_id)
    RETURNING limit_tells.*
    """  # noqa: S608 (no value is pasted in)
)
_FOLLOW = text("""
UPDATE limit_tells SET due_time = :due_time, pause_until = '-infinity'
WHERE (organization_id, mode, subscription_id) = (:organization_id, :mode, :subscription_id)
    AND revision = :revision
""")
_POSTPONE = text("""
UPDATE limit_tells SET pause_until = :until
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
    """Up to `limit` of each mode that are due, those of customers on a test clock by that; nobody
    else takes them before `until`, which is real.
    """
    rows = await connection.execute(_CLAIM, {"now": now, "until": until, "limit": limit})
    return [
        LimitTell(TenantKey(row.organization_id, row.mode), row.subscription_id, row.revision)
        for row in rows
    ]


async def told(connection: AsyncConnection, tell: LimitTell, due_time: datetime | None) -> None:
    """It was told as of this revision; again at `due_time`, or (None) never. What has changed
    meanwhile stays due.
    """
    if due_time is None:
        await connection.execute(_DELETE, _values(tell))
    else:
        await connection.execute(_FOLLOW, {**_values(tell), "due_time": due_time})


async def postpone(connection: AsyncConnection, tell: LimitTell, until: datetime) -> None:
    """Tell it again then, by the real time, or when it has changed."""
    await connection.execute(_POSTPONE, {**_values(tell), "until": until})


def _values(tell: LimitTell) -> dict[str, object]:
    return {
        **tell.tenant._asdict(),
        "subscription_id": tell.subscription_id,
        "revision": tell.revision,
    }
