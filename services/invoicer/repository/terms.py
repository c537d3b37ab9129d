"""What periods that are to be closed are subject to besides their plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.adjustments import BilledPart
from services.invoicer.base_prices import Prepaid
from services.invoicer.charges import OneOffCharge
from services.invoicer.discounts import SubscriptionDiscount
from services.invoicer.domain import LineKind
from services.invoicer.periods import Period
from services.invoicer.repository.charges import charge_of
from services.invoicer.repository.discounts import discount_of

SubscriptionKey = tuple[str, str, str]

_GIVEN = """
    unnest(CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]))
        AS given (organization_id, mode, id)
"""

_DISCOUNTS = text(
    f"""
    SELECT d.* FROM {_GIVEN}
    JOIN discounts d ON (d.organization_id, d.mode, d.subscription_id)
        = (given.organization_id, given.mode, given.id)
    ORDER BY d.id
    """  # noqa: S608 (no value is pasted in)
)

_CHARGES = text(
    f"""
    SELECT c.* FROM {_GIVEN}
    JOIN charges c ON (c.organization_id, c.mode, c.subscription_id)
        = (given.organization_id, given.mode, given.id)
    WHERE NOT EXISTS (
        SELECT FROM invoice_lines l
        WHERE (l.charge_id, l.organization_id, l.mode) = (c.id, c.organization_id, c.mode)
    )
    ORDER BY c.id
    """  # noqa: S608 (no value is pasted in)
)

# What was billed by an invoice `i`, and what credit notes of it changed of that since its period
# costs less after all. Credit notes of other reasons change nothing of what is billed.
BILLED_LINES = """
    (
        SELECT period_start, period_end, kind, metric, quantity, amount FROM invoice_lines
        WHERE (organization_id, mode, invoice_id) = (i.organization_id, i.mode, i.id)
        UNION ALL
        SELECT period_start, period_end, kind, metric, quantity, amount FROM credit_note_changes
        WHERE (organization_id, mode, invoice_id) = (i.organization_id, i.mode, i.id)
    )
"""

# A price of a period in advance stands on the invoice of the one before, which may be a year long.
_BEFORE = timedelta(days=400)

_BILLED_PARTS = text(
    f"""
    SELECT i.organization_id, i.mode, i.subscription_id, l.period_start, l.period_end, l.kind,
        sum(l.amount) AS amount
    FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:period_start AS timestamptz[])
    ) AS given (organization_id, mode, id, period_start)
    JOIN invoices i ON (i.organization_id, i.mode, i.subscription_id)
            = (given.organization_id, given.mode, given.id)
        AND i.status <> 'VOID'
        AND i.period_end > given.period_start - CAST(:late AS interval)
    CROSS JOIN LATERAL {BILLED_LINES} AS l
    GROUP BY i.organization_id, i.mode, i.subscription_id, l.period_start, l.period_end, l.kind
    """  # noqa: S608 (no value is pasted in)
)


_PREPAID = text(
    """
    SELECT i.organization_id, i.mode, i.subscription_id, i.status, l.period_start, l.period_end,
        l.unit_price, l.quantity, l.amount
    FROM unnest(
        CAST(:organization_id AS text[]), CAST(:mode AS text[]), CAST(:id AS text[]),
        CAST(:period_start AS timestamptz[]), CAST(:exact_start AS timestamptz[])
    ) AS given (organization_id, mode, id, period_start, exact_start)
    JOIN invoices i ON (i.organization_id, i.mode, i.subscription_id)
            = (given.organization_id, given.mode, given.id)
        AND i.period_end >= given.period_start
    JOIN invoice_lines l ON (l.organization_id, l.mode, l.invoice_id)
            = (i.organization_id, i.mode, i.id)
        AND l.kind = 'BASE' AND l.unit_price IS NOT NULL
        AND l.period_start >= given.exact_start
    WHERE NOT EXISTS (
        SELECT FROM invoices later
        JOIN invoice_lines credit ON (credit.organization_id, credit.mode, credit.invoice_id)
            = (later.organization_id, later.mode, later.id)
        WHERE (later.organization_id, later.mode, later.subscription_id)
                = (given.organization_id, given.mode, given.id)
            AND later.period_end >= given.period_start AND later.status <> 'VOID'
            AND credit.kind = 'BASE' AND credit.unit_price IS NULL
            AND (credit.period_start, credit.period_end, credit.amount)
                = (l.period_start, l.period_end, -l.amount)
    )
    ORDER BY i.subscription_id, l.period_start
    """
)


@dataclass(frozen=True, slots=True)
class FoundTerms:
    """By subscription; those without any are left out."""

    discounts: Mapping[SubscriptionKey, tuple[SubscriptionDiscount, ...]]
    charges: Mapping[SubscriptionKey, tuple[OneOffCharge, ...]]


async def find_terms(
    connection: AsyncConnection, subscriptions: Sequence[SubscriptionKey]
) -> FoundTerms:
    """The discounts of subscriptions, ended ones too, and the charges that wait for an invoice."""
    charges: dict[SubscriptionKey, list[OneOffCharge]] = {}
    discounts = await discounts_of(connection, subscriptions)
    for row in await connection.execute(_CHARGES, _keys(subscriptions)):
        key = (row.organization_id, row.mode, row.subscription_id)
        charges.setdefault(key, []).append(charge_of(row, ""))
    return FoundTerms(discounts, {key: tuple(found) for key, found in charges.items()})


async def discounts_of(
    connection: AsyncConnection, subscriptions: Sequence[SubscriptionKey]
) -> dict[SubscriptionKey, tuple[SubscriptionDiscount, ...]]:
    """The discounts of subscriptions, oldest first, ended ones too; those without are left out."""
    discounts: dict[SubscriptionKey, list[SubscriptionDiscount]] = {}
    for row in await connection.execute(_DISCOUNTS, _keys(subscriptions)):
        key = (row.organization_id, row.mode, row.subscription_id)
        discounts.setdefault(key, []).append(discount_of(row))
    return {key: tuple(found) for key, found in discounts.items()}


async def billed_parts(
    connection: AsyncConnection,
    subscriptions: Sequence[tuple[SubscriptionKey, object]],
    late: timedelta,
) -> dict[SubscriptionKey, tuple[BilledPart, ...]]:
    """What invoices have billed, by kind and what it is for; of subscriptions with the start of
    the period that is to be closed.
    """
    if not subscriptions:
        return {}
    given = {
        **_keys([key for key, _ in subscriptions]),
        "period_start": [start for _, start in subscriptions],
        "late": late + _BEFORE,
    }
    parts: dict[SubscriptionKey, list[BilledPart]] = {}
    for row in await connection.execute(_BILLED_PARTS, given):
        key = (row.organization_id, row.mode, row.subscription_id)
        kind = LineKind(row.kind)
        part = BilledPart(row.period_start, kind, row.amount, row.period_end)
        parts.setdefault(key, []).append(part)
    return {key: tuple(found) for key, found in parts.items()}


async def prepaid_of(
    connection: AsyncConnection, periods: Sequence[tuple[SubscriptionKey, Period, datetime]]
) -> dict[SubscriptionKey, tuple[Prepaid, ...]]:
    """The base prices that invoices have charged for what begins with each period or after it, and
    have not credited in full, by time; with each period goes the second that it begins with.
    """
    if not periods:
        return {}
    given = {
        **_keys([key for key, *_ in periods]),
        "period_start": [period.start for _, period, _ in periods],
        "exact_start": [exact for *_, exact in periods],
    }
    found: dict[SubscriptionKey, list[Prepaid]] = {}
    for row in await connection.execute(_PREPAID, given):
        key = (row.organization_id, row.mode, row.subscription_id)
        paid = Prepaid(
            period=Period(row.period_start, row.period_end),
            unit_price=row.unit_price,
            quantity=row.quantity,
            amount=row.amount,
            void=row.status == "VOID",
        )
        found.setdefault(key, []).append(paid)
    return {key: tuple(prepaid) for key, prepaid in found.items()}


def _keys(subscriptions: Sequence[SubscriptionKey]) -> dict[str, object]:
    names = ("organization_id", "mode", "id")
    return {name: [key[index] for key in subscriptions] for index, name in enumerate(names)}
