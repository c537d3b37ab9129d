"""The SQL of quotas and reservations. Each function works inside the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Row, delete, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.aggregator.quotas.domain import (
    ACTIVE,
    THRESHOLDS_DEFAULT,
    Customer,
    NewReservation,
    Quota,
    QuotaSettings,
    Reservation,
)
from services.aggregator.tables import metrics, quota_reservations, quotas
from services.aggregator.windows import BILLING_PERIOD
from services.kit.database import TenantKey

# Quotas


async def put_quota(
    connection: AsyncConnection,
    quota_id: str,
    metric_id: int,
    settings: QuotaSettings,
    now: datetime,
) -> tuple[Quota, bool]:
    """Store a quota, or set the one of the same metric, customer and period; whether it is new."""
    changing = {
        "limit_amount": settings.limit,
        "enforcement": settings.enforcement,
        "time_zone": settings.time_zone,
        "thresholds": list(settings.thresholds),
        "update_time": now,
    }
    statement = (
        insert(quotas)
        .values(
            quota_id=quota_id,
            metric_id=metric_id,
            customer_id=settings.customer_id,
            period=settings.period,
            create_time=now,
            **changing,
        )
        .on_conflict_do_update(
            index_elements=[quotas.c.metric_id, quotas.c.customer_id, quotas.c.period],
            set_=changing,
        )
        .returning(quotas)
    )
    row = (await connection.execute(statement)).one()
    return _quota(row, settings.metric), row.quota_id == quota_id


async def lock_quota(
    connection: AsyncConnection, metric_id: int, settings: QuotaSettings
) -> Quota | None:
    """The quota of the same metric, customer and period, or None; nobody else changes it now."""
    query = (
        select(quotas)
        .where(
            quotas.c.metric_id == metric_id,
            quotas.c.customer_id == settings.customer_id,
            quotas.c.period == settings.period,
        )
        .with_for_update()
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _quota(row, settings.metric)


async def get_quota(
    connection: AsyncConnection, tenant: TenantKey, quota_id: str, *, lock: bool = False
) -> Quota | None:
    """The quota, which nobody else changes before the commit if it is to be locked; or None."""
    query = (
        select(quotas, metrics.c.key)
        .join_from(quotas, metrics)
        .where(*_of(tenant), quotas.c.quota_id == quota_id)
    )
    if lock:
        query = query.with_for_update(of=quotas)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _quota(row, row.key)


async def list_quotas(
    connection: AsyncConnection,
    tenant: TenantKey,
    *,
    metric: str,
    customer_id: str | None,
    before_id: str | None,
    limit: int,
) -> list[Quota]:
    """Up to `limit` quotas, newest first, older than `before_id`; ids sort by time."""
    query = select(quotas, metrics.c.key).join_from(quotas, metrics).where(*_of(tenant))
    if metric:
        query = query.where(metrics.c.key == metric)
    if customer_id is not None:
        query = query.where(quotas.c.customer_id == customer_id)
    if before_id is not None:
        query = query.where(quotas.c.quota_id < before_id)
    rows = await connection.execute(query.order_by(quotas.c.quota_id.desc()).limit(limit))
    return [_quota(row, row.key) for row in rows]


async def delete_quota(connection: AsyncConnection, quota_id: str) -> bool:
    """Take a quota away; whether it was there."""
    statement = delete(quotas).where(quotas.c.quota_id == quota_id)
    return (await connection.execute(statement)).rowcount > 0


def _of(tenant: TenantKey) -> tuple[Any, Any]:
    return metrics.c.organization_id == tenant.organization_id, metrics.c.mode == tenant.mode


def _quota(row: Row[Any], metric: str) -> Quota:
    return Quota(
        quota_id=row.quota_id,
        settings=QuotaSettings(
            metric=metric,
            customer_id=row.customer_id,
            period=row.period,
            limit=row.limit_amount,
            enforcement=row.enforcement,
            time_zone=row.time_zone,
            thresholds=tuple(row.thresholds),
        ),
        create_time=row.create_time,
        update_time=row.update_time,
    )


@dataclass(slots=True)
class Limited:
    """A metric that exists, and the quotas that name the customer or are defaults."""

    metric_id: int
    # Metric.counted_id.
    counted_id: int
    aggregation: str
    quotas: list[Quota]


_FIND_LIMITED = text("""
SELECT number, metrics.metric_id, metrics.counted_id, metrics.aggregation, metrics.key,
    limits.quota_id, limits.customer_id, limits.period, limits.limit_amount, limits.enforcement,
    limits.time_zone, limits.thresholds, limits.create_time, limits.update_time, limits.boundaries
FROM unnest(CAST(:organizations AS text[]), CAST(:modes AS text[]), CAST(:keys AS text[]),
    CAST(:customers AS text[]))
    WITH ORDINALITY AS wanted (organization_id, mode, key, customer_id, number)
JOIN metrics USING (organization_id, mode, key)
LEFT JOIN LATERAL (
    SELECT quota_id, customer_id, period, limit_amount, enforcement, time_zone, thresholds,
        create_time, update_time, CAST('{}' AS timestamptz[]) AS boundaries
    FROM quotas
    WHERE quotas.metric_id = metrics.metric_id AND quotas.customer_id IN ('', wanted.customer_id)
    UNION ALL
    SELECT quota_id, customer_id, :plan_period, limit_amount, enforcement, '',
        CAST(:plan_thresholds AS text[]), create_time, update_time, boundaries
    FROM plan_limits
    WHERE plan_limits.metric_id = metrics.metric_id
        AND plan_limits.customer_id = wanted.customer_id
) AS limits ON true
""")


async def find_limited(
    connection: AsyncConnection, wanted: Sequence[Customer]
) -> dict[Customer, Limited]:
    """Those whose metric exists."""
    values = {
        "organizations": [customer.tenant.organization_id for customer in wanted],
        "modes": [customer.tenant.mode for customer in wanted],
        "keys": [customer.metric for customer in wanted],
        "customers": [customer.customer_id for customer in wanted],
        "plan_period": BILLING_PERIOD,
        "plan_thresholds": list(THRESHOLDS_DEFAULT),
    }
    found: dict[Customer, Limited] = {}
    for row in await connection.execute(_FIND_LIMITED, values):
        customer = wanted[row.number - 1]
        limited = found.setdefault(
            customer, Limited(row.metric_id, row.counted_id, row.aggregation, [])
        )
        if row.quota_id is not None:
            limited.quotas.append(replace(_quota(row, row.key), boundaries=tuple(row.boundaries)))
    return found


# Reservations


class Holder(NamedTuple):
    """Whose units are set aside."""

    metric_id: int
    customer_id: str


class Held(NamedTuple):
    """Units set aside, and when the first of them expire; None: some are committed, and nobody
    knows when the watermark passes them.
    """

    amount: Decimal
    until: datetime | None


# What was committed stays set aside until the watermark has passed the commit: then the recorded
# usage is counted. hold_time is when an active one expires, or when it was committed.
_FIND_HELD = text("""
SELECT wanted.number, sum(coalesce(held.committed_amount, held.amount)) AS amount,
    CASE WHEN NOT bool_or(held.status = 'COMMITTED') THEN min(held.hold_time) END AS until
FROM unnest(CAST(:metric_ids AS bigint[]), CAST(:customers AS text[]))
    WITH ORDINALITY AS wanted (metric_id, customer_id, number)
JOIN quota_reservations held ON held.metric_id = wanted.metric_id
    AND held.customer_id = wanted.customer_id AND held.status <> 'RELEASED'
    AND held.hold_time > :counted_until
WHERE held.status = 'COMMITTED' OR held.hold_time > :now
GROUP BY wanted.number
""")


async def find_held(
    connection: AsyncConnection,
    wanted: Sequence[Holder],
    *,
    now: datetime,
    counted_until: datetime,
) -> dict[Holder, Held]:
    """Units set aside of those that have any. `counted_until` <= `now`."""
    values = {
        "metric_ids": [holder.metric_id for holder in wanted],
        "customers": [holder.customer_id for holder in wanted],
        "now": now,
        "counted_until": counted_until,
    }
    rows = await connection.execute(_FIND_HELD, values)
    return {wanted[row.number - 1]: Held(row.amount, row.until) for row in rows}


async def lock_holder(connection: AsyncConnection, holder: Holder) -> None:
    """From here on nobody else sets units of theirs aside, until the transaction ends."""
    statement = text("SELECT pg_advisory_xact_lock(hashtextextended(:customer_id, :metric_id))")
    await connection.execute(statement, holder._asdict())


async def insert_reservation(
    connection: AsyncConnection,
    tenant: TenantKey,
    metric_id: int,
    new: NewReservation,
    made: Reservation,
) -> bool:
    """Store a reservation; False when its idempotency key is taken."""
    statement = (
        insert(quota_reservations)
        .values(
            reservation_id=made.reservation_id,
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            idempotency_key=new.idempotency_key or None,
            metric_id=metric_id,
            customer_id=made.customer_id,
            amount=made.amount,
            status=ACTIVE,
            create_time=made.create_time,
            expire_time=made.expire_time,
            hold_time=made.expire_time,
        )
        .on_conflict_do_nothing()
    )
    return (await connection.execute(statement)).rowcount > 0


async def find_by_key(
    connection: AsyncConnection, tenant: TenantKey, idempotency_key: str
) -> Reservation | None:
    """The reservation that was made with the key, or None."""
    return await _find(connection, tenant, quota_reservations.c.idempotency_key == idempotency_key)


async def get_reservation(
    connection: AsyncConnection,
    tenant: TenantKey,
    reservation_id: str,
    *,
    for_update: bool = False,
) -> Reservation | None:
    """The reservation, or None."""
    condition = quota_reservations.c.reservation_id == reservation_id
    return await _find(connection, tenant, condition, for_update=for_update)


async def _find(
    connection: AsyncConnection, tenant: TenantKey, condition: Any, *, for_update: bool = False
) -> Reservation | None:
    query = (
        select(quota_reservations, metrics.c.key)
        .join_from(quota_reservations, metrics)
        .where(
            quota_reservations.c.organization_id == tenant.organization_id,
            quota_reservations.c.mode == tenant.mode,
            condition,
        )
    )
    if for_update:
        query = query.with_for_update(of=quota_reservations)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    return Reservation(
        reservation_id=row.reservation_id,
        metric=row.key,
        customer_id=row.customer_id,
        amount=row.amount,
        status=row.status,
        create_time=row.create_time,
        expire_time=row.expire_time,
        committed_amount=row.committed_amount,
    )


async def finish_reservation(
    connection: AsyncConnection,
    reservation_id: str,
    status: str,
    committed_amount: Decimal | None,
    now: datetime,
) -> None:
    """Note what became of an active reservation."""
    statement = (
        update(quota_reservations)
        .where(quota_reservations.c.reservation_id == reservation_id)
        .values(status=status, committed_amount=committed_amount, hold_time=now)
    )
    await connection.execute(statement)


_PRUNE = text("""
WITH old AS (
    SELECT reservation_id FROM quota_reservations WHERE hold_time < :before
    ORDER BY hold_time LIMIT :rows_max FOR UPDATE SKIP LOCKED
)
DELETE FROM quota_reservations AS pruned USING old
WHERE pruned.reservation_id = old.reservation_id
""")


async def prune_reservations(connection: AsyncConnection, before: datetime, rows_max: int) -> int:
    """Forget up to `rows_max` reservations that expired or ended before; returns how many."""
    values = {"before": before, "rows_max": rows_max}
    return (await connection.execute(_PRUNE, values)).rowcount
