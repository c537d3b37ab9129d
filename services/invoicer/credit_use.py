"""Moves prepaid credits: pays invoices while they are finalized, gives back what they need no more.

Wallets are locked after subscriptions and invoices and before the tenant's counter, several in the
order of their keys.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import credits_granted_event, low_balance_event
from services.invoicer.credits import (
    OPEN_GRANTS_MAX,
    Applications,
    CreditGrant,
    EntryKind,
    Movement,
    Wallet,
    returned,
)
from services.invoicer.domain import Invoice, InvoiceDraft
from services.invoicer.exact import ZERO, add, subtract, total
from services.invoicer.repository import ledger
from services.invoicer.repository.events import add_events
from services.kit.database import TenantKey
from services.kit.errors import PreconditionError


async def move(
    connection: AsyncConnection,
    tenant: TenantKey,
    wallets: Sequence[Wallet],
    movements: Sequence[Movement],
    now: datetime,
) -> list[Wallet]:
    """Write entries of wallets that the caller has locked; the wallets after it.

    Whose balance has come down to its threshold is told, once for all of the entries.
    """
    await ledger.enter(connection, tenant, movements, now)
    after = [_moved(wallet, movements) for wallet in wallets]
    low = [
        low_balance_event(tenant, now_there, now)
        for before, now_there in zip(wallets, after, strict=True)
        if now_there.came_down_to_low(before.balance)
    ]
    await add_events(connection, low)
    return after


def _moved(wallet: Wallet, movements: Sequence[Movement]) -> Wallet:
    key = (wallet.customer_id, wallet.currency)
    own = [each.amount for each in movements if (each.customer_id, each.currency) == key]
    balance, sequence = add(wallet.balance, total(own)), wallet.sequence + len(own)
    return replace(wallet, balance=balance, sequence=sequence)


def would_pay(
    grants: Sequence[CreditGrant], drafts: Sequence[InvoiceDraft], now: datetime
) -> tuple[Decimal, ...]:
    """What grants would pay of drafts that are finalized one after the other."""
    applications, paid = Applications(grants, now), []
    for draft in drafts:
        found = applications.pay("", (draft.customer_id, draft.currency), draft.amount)
        paid.append(subtract(ZERO, total(each.amount for each in found)))
    return tuple(paid)


async def pay_from_credits(
    connection: AsyncConnection,
    tenant: TenantKey,
    drafts: Mapping[str, InvoiceDraft],
    now: datetime,
) -> dict[str, Decimal]:
    """Pay drafts that are stored, by invoice id, as far as credit goes: how much of each."""
    owners = {key: (draft.customer_id, draft.currency) for key, draft in drafts.items()}
    wallets = await ledger.lock_filled(connection, tenant, owners.values())
    if not wallets:
        return {}
    filled = [(each.customer_id, each.currency) for each in wallets]
    applications = Applications(await ledger.open_grants(connection, tenant, filled), now)
    movements: list[Movement] = []
    paid: dict[str, Decimal] = {}
    for key, draft in drafts.items():
        found = applications.pay(key, owners[key], draft.amount)
        movements += found
        if found:
            paid[key] = subtract(ZERO, total(each.amount for each in found))
    await move(connection, tenant, wallets, movements, now)
    return paid


async def give_back(
    connection: AsyncConnection,
    tenant: TenantKey,
    invoice: Invoice,
    amount: Decimal,
    reason: str,
    now: datetime,
) -> None:
    """Let `amount` of the credit that paid an invoice, which is locked, go back to its grants."""
    if amount <= 0:
        return
    key = (invoice.customer_id, invoice.currency)
    wallet = await ledger.lock_wallet(connection, tenant, key, now)
    paid = await ledger.paid_by(connection, tenant, invoice.id)
    movements = returned(paid, invoice.id, amount, reason, now)
    await move(connection, tenant, [wallet], movements, now)


async def bring_in(
    connection: AsyncConnection, tenant: TenantKey, wallet: Wallet, grant: CreditGrant
) -> Wallet:
    """Store a grant, of a wallet that the caller has locked, with its entry; the wallet after it.

    PreconditionError when too many of the wallet's grants have something left.
    """
    there = await ledger.open_grants(connection, tenant, [(wallet.customer_id, wallet.currency)])
    if len(there) >= OPEN_GRANTS_MAX:
        raise PreconditionError(
            f"At most {OPEN_GRANTS_MAX} grants of a customer have something left",
            reason="too_many_grants",
        )
    await ledger.insert_grant(connection, tenant, grant)
    brought = Movement(
        grant.customer_id,
        grant.currency,
        grant.id,
        EntryKind.GRANT,
        grant.amount,
        reason=grant.description,
    )
    (after,) = await move(connection, tenant, [wallet], [brought], grant.create_time)
    event = credits_granted_event(tenant, grant, after, grant.create_time)
    await add_events(connection, [event])
    return after
