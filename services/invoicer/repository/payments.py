"""How customers pay, what is being collected, and every attempt."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Row, Table, and_, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.elements import ColumnElement

from services.invoicer.payments.domain import (
    Attempt,
    AttemptState,
    Outcome,
    PaymentMethod,
    ProviderName,
)
from services.invoicer.repository.clocks import LATEST_NOW, now_of_customer
from services.invoicer.tables import (
    collections,
    invoices,
    payment_attempts,
    payment_methods,
)
from services.kit.database import TenantKey

_LONG_AGO = text("'-infinity'")

# Whatever is to be paid by a provider that its customer has a method with.
_COLLECT = text(
    """
    INSERT INTO collections (organization_id, mode, invoice_id, next_attempt_time)
    SELECT i.organization_id, i.mode, i.id, CAST(:now AS timestamptz)
    FROM invoices i
    JOIN billing_settings b ON (b.organization_id, b.mode) = (i.organization_id, i.mode)
    JOIN payment_methods m
        ON (m.organization_id, m.mode, m.customer_id) = (i.organization_id, i.mode, i.customer_id)
        AND m.provider = b.provider
    WHERE (i.organization_id, i.mode) = (:organization_id, :mode)
        AND i.id = ANY(CAST(:ids AS text[]))
        AND i.status IN ('PENDING', 'FAILED') AND i.amount > 0
    ON CONFLICT (organization_id, mode, invoice_id)
        DO UPDATE SET next_attempt_time = excluded.next_attempt_time, pause_until = '-infinity'
    """
)

_CLAIM = text(
    f"""
    WITH live AS (
        SELECT organization_id, mode, invoice_id FROM collections
        WHERE mode = 'live' AND next_attempt_time <= :now
            AND pause_until <= :now AND lease_time <= now()
        ORDER BY next_attempt_time
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), test AS (
        SELECT o.organization_id, o.mode, o.invoice_id FROM collections o
        JOIN invoices i ON (i.organization_id, i.mode, i.id)
            = (o.organization_id, o.mode, o.invoice_id)
        WHERE o.mode = 'test' AND o.next_attempt_time <= {LATEST_NOW}
            AND o.next_attempt_time <= {now_of_customer("i")}
            AND o.pause_until <= :now AND o.lease_time <= now()
        ORDER BY o.next_attempt_time
        LIMIT :limit
        FOR UPDATE OF o SKIP LOCKED
    )
    UPDATE collections c SET lease_time = now() + CAST(:lease AS interval)
    FROM (SELECT * FROM live UNION ALL SELECT * FROM test) AS due
    WHERE (c.organization_id, c.mode, c.invoice_id)
        = (due.organization_id, due.mode, due.invoice_id)
    RETURNING c.organization_id, c.mode, c.invoice_id, c.unknown_count
    """  # noqa: S608 (no value is pasted in)
)


class Claimed(NamedTuple):
    """An invoice whose payment is due, kept from other replicas for a while."""

    tenant: TenantKey
    invoice_id: str
    unknown_count: int


async def collect(
    connection: AsyncConnection, tenant: TenantKey, invoice_ids: Sequence[str], now: datetime
) -> int:
    """Let open invoices be collected from now on where a provider can; how many."""
    given = {**tenant._asdict(), "ids": list(invoice_ids), "now": now}
    return (await connection.execute(_COLLECT, given)).rowcount


async def claim(
    connection: AsyncConnection, now: datetime, *, limit: int, lease: timedelta
) -> list[Claimed]:
    """Up to `limit` invoices of each mode whose next attempt is due, the longest first; those of
    customers on a test clock by that.
    """
    rows = await connection.execute(_CLAIM, {"now": now, "limit": limit, "lease": lease})
    return [
        Claimed(TenantKey(row.organization_id, row.mode), row.invoice_id, row.unknown_count)
        for row in rows
    ]


async def schedule(
    connection: AsyncConnection,
    tenant: TenantKey,
    invoice_id: str,
    next_attempt_time: datetime,
) -> None:
    """When it is tried next, by the customer's time and by whichever replica."""
    await connection.execute(
        update(collections)
        .where(_of(collections, tenant, invoice_id))
        .values(
            next_attempt_time=next_attempt_time,
            lease_time=_LONG_AGO,
            pause_until=_LONG_AGO,
            unknown_count=0,
        )
    )


async def postpone(connection: AsyncConnection, claimed: Claimed, pause_until: datetime) -> None:
    """Ask again then, by the real time, what came of the attempt that nobody can tell of."""
    await connection.execute(
        update(collections)
        .where(_of(collections, claimed.tenant, claimed.invoice_id))
        .values(
            lease_time=_LONG_AGO,
            pause_until=pause_until,
            unknown_count=claimed.unknown_count + 1,
        )
    )


async def stop(connection: AsyncConnection, tenant: TenantKey, invoice_id: str) -> None:
    """Try no more."""
    await connection.execute(delete(collections).where(_of(collections, tenant, invoice_id)))


async def next_attempt_time(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> datetime | None:
    """When it is tried next; None: it is not."""
    columns = collections.c
    when = func.greatest(columns.next_attempt_time, columns.pause_until)
    query = select(when).where(_of(collections, tenant, invoice_id))
    found: datetime | None = (await connection.execute(query)).scalar_one_or_none()
    return found


async def insert_attempt(connection: AsyncConnection, tenant: TenantKey, attempt: Attempt) -> None:
    """Store an attempt; whoever does has locked the invoice."""
    method = attempt.method
    await connection.execute(
        insert(payment_attempts).values(
            **tenant._asdict(),
            invoice_id=attempt.invoice_id,
            number=attempt.number,
            provider=attempt.provider.value,
            provider_customer=method.provider_customer if method else None,
            provider_method=method.provider_method if method else None,
            amount=attempt.amount,
            currency=attempt.currency,
            state=attempt.state.value,
            reference=attempt.reference,
            error_code=attempt.error_code,
            error_message=attempt.error_message,
            start_time=attempt.start_time,
            end_time=attempt.end_time,
            real_start_time=attempt.real_start_time,
        )
    )


async def end_attempt(
    connection: AsyncConnection,
    tenant: TenantKey,
    attempt: Attempt,
    outcome: Outcome,
    now: datetime,
) -> bool:
    """Store what came of an attempt; False, and nothing is stored, when that is known already."""
    columns = payment_attempts.c
    pending = outcome.state is AttemptState.PENDING
    statement = (
        update(payment_attempts)
        .where(
            _of(payment_attempts, tenant, attempt.invoice_id),
            columns.number == attempt.number,
            columns.state == AttemptState.PENDING.value,
        )
        .values(
            state=outcome.state.value,
            reference=outcome.reference,
            error_code=outcome.error_code,
            error_message=outcome.error_message,
            end_time=None if pending else now,
        )
    )
    return (await connection.execute(statement)).rowcount == 1


async def attempts_of(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> list[Attempt]:
    """All attempts of an invoice, oldest first."""
    query = select(payment_attempts).where(_of(payment_attempts, tenant, invoice_id))
    rows = await connection.execute(query.order_by(payment_attempts.c.number))
    return [_attempt(row) for row in rows]


async def is_being_paid(connection: AsyncConnection, tenant: TenantKey, invoice_id: str) -> bool:
    """Whether an attempt has begun of which nobody knows yet what came of it."""
    columns = payment_attempts.c
    query = select(columns.number).where(
        _of(payment_attempts, tenant, invoice_id), columns.state == AttemptState.PENDING.value
    )
    return (await connection.execute(query)).first() is not None


async def is_leased(connection: AsyncConnection, tenant: TenantKey, invoice_id: str) -> bool:
    """Whether a replica may be collecting it right now."""
    query = select(collections.c.invoice_id).where(
        _of(collections, tenant, invoice_id), collections.c.lease_time > func.now()
    )
    return (await connection.execute(query)).first() is not None


async def has_exhausted(
    connection: AsyncConnection, tenant: TenantKey, subscription_id: str, failures_max: int
) -> bool:
    """Whether payments of an invoice of the subscription have failed more often than that."""
    query = select(invoices.c.id).where(
        invoices.c.organization_id == tenant.organization_id,
        invoices.c.mode == tenant.mode,
        invoices.c.subscription_id == subscription_id,
        invoices.c.status == "FAILED",
        invoices.c.failed_payments > failures_max,
    )
    return (await connection.execute(query.limit(1))).first() is not None


async def get_method(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> PaymentMethod | None:
    """How the customer pays; None: as they agree with the organization."""
    columns = payment_methods.c
    query = select(payment_methods).where(
        columns.organization_id == tenant.organization_id,
        columns.mode == tenant.mode,
        columns.customer_id == customer_id,
    )
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _method(row)


async def put_method(
    connection: AsyncConnection,
    tenant: TenantKey,
    customer_id: str,
    method: PaymentMethod,
    now: datetime,
) -> None:
    """Store how a customer pays."""
    values = {
        "provider": method.provider.value,
        "provider_customer": method.provider_customer,
        "provider_method": method.provider_method,
        "update_time": now,
    }
    statement = upsert(payment_methods).values(
        **tenant._asdict(), customer_id=customer_id, **values
    )
    await connection.execute(
        statement.on_conflict_do_update(constraint="pk_payment_methods", set_=values)
    )


async def delete_method(connection: AsyncConnection, tenant: TenantKey, customer_id: str) -> None:
    """Forget how a customer pays."""
    columns = payment_methods.c
    await connection.execute(
        delete(payment_methods).where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.customer_id == customer_id,
        )
    )


def _of(table: Table, tenant: TenantKey, invoice_id: str) -> ColumnElement[bool]:
    """The condition that a row is about the invoice."""
    return and_(
        table.c.organization_id == tenant.organization_id,
        table.c.mode == tenant.mode,
        table.c.invoice_id == invoice_id,
    )


def _method(row: Row[tuple[object, ...]]) -> PaymentMethod:
    return PaymentMethod(ProviderName(row.provider), row.provider_customer, row.provider_method)


def _attempt(row: Row[tuple[object, ...]]) -> Attempt:
    return Attempt(
        invoice_id=row.invoice_id,
        number=row.number,
        provider=ProviderName(row.provider),
        method=None if row.provider_customer is None else _method(row),
        amount=row.amount,
        currency=row.currency,
        state=AttemptState(row.state),
        reference=row.reference,
        error_code=row.error_code,
        error_message=row.error_message,
        start_time=row.start_time,
        end_time=row.end_time,
        real_start_time=row.real_start_time or row.start_time,
    )
