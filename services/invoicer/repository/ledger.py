"""Wallets, grants and the ledger of prepaid credits."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Row, Select, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.credits import (
    CreditEntry,
    CreditGrant,
    EntryKind,
    GrantKind,
    Movement,
    Wallet,
)
from services.invoicer.repository.clocks import LATEST_NOW, now_of_customer
from services.invoicer.tables import credit_entries, credit_grants, credit_wallets
from services.kit.database import TenantKey

# Customer and currency: a wallet of the tenant.
WalletKey = tuple[str, str]

_AMONG = """(organization_id, mode) = (:organization_id, :mode) AND (customer_id, currency) IN (
        SELECT * FROM unnest(CAST(:customer_ids AS text[]), CAST(:currencies AS text[])))"""

# In one order everywhere: two who pay invoices of the same customers must not deadlock.
_LOCK_FILLED = text(
    f"""
    SELECT * FROM credit_wallets WHERE {_AMONG} AND balance > 0
    ORDER BY customer_id, currency FOR UPDATE
    """  # noqa: S608 (no value is pasted in)
)
_OPEN_GRANTS = text(f"SELECT * FROM credit_grants WHERE {_AMONG} AND balance > 0")  # noqa: S608

_ENTER = text(
    """
    INSERT INTO credit_entries (
        organization_id, mode, customer_id, currency, grant_id, kind, amount, invoice_id, reason,
        create_time
    )
    SELECT :organization_id, :mode, customer_id, currency, grant_id, kind, amount,
        nullif(invoice_id, ''), reason, :now
    FROM unnest(
        CAST(:customer_ids AS text[]), CAST(:currencies AS text[]), CAST(:grant_ids AS text[]),
        CAST(:kinds AS text[]), CAST(:amounts AS numeric[]), CAST(:invoice_ids AS text[]),
        CAST(:reasons AS text[])
    ) WITH ORDINALITY AS given (
        customer_id, currency, grant_id, kind, amount, invoice_id, reason, number
    ) ORDER BY number
    """
)

_PAID = text(
    """
    SELECT g.*, -e.amount AS paid FROM (
        SELECT grant_id, sum(amount) AS amount FROM credit_entries
        WHERE (organization_id, mode, invoice_id) = (:organization_id, :mode, :invoice_id)
        GROUP BY grant_id
    ) AS e
    JOIN credit_grants g ON (g.organization_id, g.mode, g.id)
        = (:organization_id, :mode, e.grant_id)
    WHERE e.amount < 0
    """
)

# Of who is on a test clock by that. Wallets that somebody uses just now are there next time.
_CLAIM_EXPIRED = text(
    f"""
    WITH expired AS (
        (
            SELECT organization_id, mode, customer_id, currency FROM credit_grants
            WHERE balance > 0 AND expire_time <= :now AND mode = 'live'
            ORDER BY expire_time LIMIT :limit
        ) UNION ALL (
            SELECT g.organization_id, g.mode, g.customer_id, g.currency FROM credit_grants g
            WHERE g.balance > 0 AND g.mode = 'test'
                AND g.expire_time <= {LATEST_NOW} AND g.expire_time <= {now_of_customer("g")}
            ORDER BY g.expire_time LIMIT :limit
        )
    )
    SELECT * FROM credit_wallets
    WHERE (organization_id, mode, customer_id, currency) IN (SELECT * FROM expired)
    ORDER BY organization_id, mode, customer_id, currency
    FOR UPDATE SKIP LOCKED
    """  # noqa: S608 (no value is pasted in)
)


async def lock_filled(
    connection: AsyncConnection, tenant: TenantKey, keys: Iterable[WalletKey]
) -> list[Wallet]:
    """Those of the wallets that have a balance; nobody else changes them meanwhile."""
    rows = await connection.execute(_LOCK_FILLED, _among(tenant, keys))
    return [_wallet(row) for row in rows]


async def lock_wallet(
    connection: AsyncConnection, tenant: TenantKey, key: WalletKey, now: datetime
) -> Wallet:
    """A wallet, which comes into being when it is not there; nobody else changes it meanwhile."""
    customer_id, currency = key
    owner = {**tenant._asdict(), "customer_id": customer_id, "currency": currency}
    made = upsert(credit_wallets).values(**owner, create_time=now).on_conflict_do_nothing()
    await connection.execute(made)
    query = _wallets(tenant, customer_id).where(credit_wallets.c.currency == currency)
    return _wallet((await connection.execute(query.with_for_update())).one())


async def list_wallets(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> list[Wallet]:
    """A customer's wallets, by currency."""
    query = _wallets(tenant, customer_id).order_by(credit_wallets.c.currency)
    return [_wallet(row) for row in await connection.execute(query)]


async def set_low_balance(
    connection: AsyncConnection, tenant: TenantKey, key: WalletKey, threshold: Decimal | None
) -> None:
    """When to tell that a wallet is nearly empty; None: never."""
    columns = credit_wallets.c
    await connection.execute(
        update(credit_wallets)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.customer_id == key[0],
            columns.currency == key[1],
        )
        .values(low_balance=threshold)
    )


async def claim_expired(
    connection: AsyncConnection, now: datetime, limit: int
) -> list[tuple[TenantKey, Wallet]]:
    """Wallets of grants, up to `limit` of each mode, that have expired and have something left;
    locked.
    """
    rows = await connection.execute(_CLAIM_EXPIRED, {"now": now, "limit": limit})
    return [(TenantKey(row.organization_id, row.mode), _wallet(row)) for row in rows]


async def open_grants(
    connection: AsyncConnection, tenant: TenantKey, keys: Iterable[WalletKey]
) -> list[CreditGrant]:
    """Grants of wallets with something left, expired ones too."""
    rows = await connection.execute(_OPEN_GRANTS, _among(tenant, keys))
    return [_grant(row) for row in rows]


async def insert_grant(connection: AsyncConnection, tenant: TenantKey, grant: CreditGrant) -> None:
    """Store a grant; what it brings is an entry of its own, in the same transaction."""
    await connection.execute(
        insert(credit_grants).values(
            **tenant._asdict(),
            id=grant.id,
            customer_id=grant.customer_id,
            currency=grant.currency,
            amount=grant.amount,
            kind=grant.kind.value,
            priority=grant.priority,
            description=grant.description,
            metadata_json=grant.metadata_json,
            expire_time=grant.expire_time,
            credit_note_id=grant.credit_note_id or None,
            create_time=grant.create_time,
        )
    )


async def get_grant(
    connection: AsyncConnection, tenant: TenantKey, grant_id: str
) -> CreditGrant | None:
    """The grant, or None."""
    query = _grants(tenant).where(credit_grants.c.id == grant_id)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else _grant(row)


async def list_grants(
    connection: AsyncConnection,
    tenant: TenantKey,
    customer_id: str,
    *,
    before_id: str | None,
    limit: int,
) -> list[CreditGrant]:
    """Up to `limit` grants of a customer, newest first, older than `before_id`."""
    query = _grants(tenant).where(credit_grants.c.customer_id == customer_id)
    if before_id is not None:
        query = query.where(credit_grants.c.id < before_id)
    rows = await connection.execute(query.order_by(credit_grants.c.id.desc()).limit(limit))
    return [_grant(row) for row in rows]


async def set_void(
    connection: AsyncConnection, tenant: TenantKey, grant_id: str, now: datetime
) -> None:
    """Declare a grant void; what was left of it has to leave by an entry."""
    columns = credit_grants.c
    await connection.execute(
        update(credit_grants)
        .where(
            columns.organization_id == tenant.organization_id,
            columns.mode == tenant.mode,
            columns.id == grant_id,
        )
        .values(void_time=now)
    )


async def enter(
    connection: AsyncConnection, tenant: TenantKey, movements: Sequence[Movement], now: datetime
) -> None:
    """Write entries in their order; the database refuses what would go below 0."""
    if not movements:
        return
    given = {
        **tenant._asdict(),
        "now": now,
        "customer_ids": [each.customer_id for each in movements],
        "currencies": [each.currency for each in movements],
        "grant_ids": [each.grant_id for each in movements],
        "kinds": [each.kind.value for each in movements],
        "amounts": [each.amount for each in movements],
        "invoice_ids": [each.invoice_id for each in movements],
        "reasons": [each.reason for each in movements],
    }
    await connection.execute(_ENTER, given)


async def list_entries(
    connection: AsyncConnection,
    tenant: TenantKey,
    key: WalletKey,
    *,
    before: int | None,
    limit: int,
) -> list[CreditEntry]:
    """Up to `limit` entries of a wallet, newest first, from before the one with that sequence."""
    columns = credit_entries.c
    query = select(credit_entries).where(
        columns.organization_id == tenant.organization_id,
        columns.mode == tenant.mode,
        columns.customer_id == key[0],
        columns.currency == key[1],
    )
    if before is not None:
        query = query.where(columns.sequence < before)
    rows = await connection.execute(query.order_by(columns.sequence.desc()).limit(limit))
    return [_entry(row) for row in rows]


async def paid_by(
    connection: AsyncConnection, tenant: TenantKey, invoice_id: str
) -> list[tuple[CreditGrant, Decimal]]:
    """The grants that paid an invoice, and how much each, less what came back to it."""
    rows = await connection.execute(_PAID, {**tenant._asdict(), "invoice_id": invoice_id})
    return [(_grant(row), row.paid) for row in rows]


def _among(tenant: TenantKey, keys: Iterable[WalletKey]) -> dict[str, object]:
    known = sorted(set(keys))
    return {
        **tenant._asdict(),
        "customer_ids": [customer_id for customer_id, _ in known],
        "currencies": [currency for _, currency in known],
    }


def _wallets(tenant: TenantKey, customer_id: str) -> Select[tuple[object, ...]]:
    columns = credit_wallets.c
    return select(credit_wallets).where(
        columns.organization_id == tenant.organization_id,
        columns.mode == tenant.mode,
        columns.customer_id == customer_id,
    )


def _grants(tenant: TenantKey) -> Select[tuple[object, ...]]:
    columns = credit_grants.c
    return select(credit_grants).where(
        columns.organization_id == tenant.organization_id, columns.mode == tenant.mode
    )


def _wallet(row: Row[tuple[object, ...]]) -> Wallet:
    return Wallet(
        customer_id=row.customer_id,
        currency=row.currency,
        balance=row.balance,
        sequence=row.newest_sequence,
        low_balance=row.low_balance,
    )


def _grant(row: Row[tuple[object, ...]]) -> CreditGrant:
    return CreditGrant(
        id=row.id,
        customer_id=row.customer_id,
        currency=row.currency,
        amount=row.amount,
        balance=row.balance,
        kind=GrantKind(row.kind),
        priority=row.priority,
        description=row.description,
        metadata_json=row.metadata_json,
        create_time=row.create_time,
        expire_time=row.expire_time,
        void_time=row.void_time,
        credit_note_id=row.credit_note_id or "",
    )


def _entry(row: Row[tuple[object, ...]]) -> CreditEntry:
    return CreditEntry(
        sequence=row.sequence,
        grant_id=row.grant_id,
        currency=row.currency,
        kind=EntryKind(row.kind),
        amount=row.amount,
        balance=row.balance,
        invoice_id=row.invoice_id or "",
        reason=row.reason,
        create_time=row.create_time,
    )
