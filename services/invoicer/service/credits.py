"""Prepaid credits: what customers were given, what is left of it, and where it went."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_events import rfc3339
from services.invoicer.checks import is_customer_id
from services.invoicer.clocks import now_of
from services.invoicer.credit_checks import (
    DebitInput,
    GrantInput,
    check_credit,
    check_credit_currency,
    check_grant,
    check_reason,
)
from services.invoicer.credit_use import bring_in, move
from services.invoicer.credits import (
    CreditEntry,
    CreditGrant,
    Wallet,
    debits,
    voiding,
)
from services.invoicer.domain import Customer
from services.invoicer.exact import ZERO
from services.invoicer.repository import clocks, customers, ledger
from services.invoicer.service.noting import note
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.wakes import Wakes
from services.kit import pages
from services.kit.audit import changes
from services.kit.database import Database, TenantKey
from services.kit.errors import FieldChecks, NotFoundError
from services.kit.ids import is_id, new_id
from services.kit.money import format_money

log = structlog.get_logger()


class Credits:
    """Wallets of customers. writer.py has them pay invoices, credit_expiry.py ends grants."""

    def __init__(self, database: Database, now: Callable[[], datetime], wakes: Wakes) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes

    async def grant_credits(
        self, tenant: TenantKey, given: GrantInput, *, by_key: str = ""
    ) -> CreditGrant:
        """Give a customer credit, for invoices that are finalized from now on."""
        checks = FieldChecks()
        async with self._database.transaction() as connection:
            customer = await _require_customer(connection, tenant, given.customer_id)
            now = await self._now_of(connection, tenant, given.customer_id)
            kind = check_grant(checks, given, now)
            currency = check_credit_currency(checks, given.currency, customer)
            amount = check_credit(checks, given.amount, "amount", currency)
            checks.done()
            grant = CreditGrant(
                id=new_id("crg"),
                customer_id=given.customer_id,
                currency=currency,
                amount=amount,
                balance=amount,
                kind=kind,
                priority=given.priority,
                description=given.description,
                metadata_json=given.metadata_json,
                create_time=now,
                expire_time=given.expire_time,
            )
            owner = (given.customer_id, currency)
            wallet = await ledger.lock_wallet(connection, tenant, owner, now)
            await bring_in(connection, tenant, wallet, grant)
            await note(connection, tenant, "credits.granted", by_key, grant.id, _shown(grant))
        log.info("credits_granted", grant_id=grant.id)
        self._wakes.relay()
        return grant

    async def void_grant(
        self, tenant: TenantKey, customer_id: str, grant_id: str, reason: str, *, by_key: str = ""
    ) -> CreditGrant:
        """Take back what is left of a grant; repeating it changes nothing."""
        checks = FieldChecks()
        check_reason(checks, reason, 0)
        checks.done()
        async with self._database.transaction() as connection:
            found = await _require_grant(connection, tenant, customer_id, grant_id)
            now = await self._now_of(connection, tenant, customer_id)
            owner = (found.customer_id, found.currency)
            wallet = await ledger.lock_wallet(connection, tenant, owner, now)
            grant = await _require_grant(connection, tenant, customer_id, grant_id)
            if grant.void_time is not None:
                return grant
            await move(connection, tenant, [wallet], voiding(grant, reason), now)
            await ledger.set_void(connection, tenant, grant_id, now)
            details = {**_shown(grant), "reason": reason}
            await note(connection, tenant, "credits.voided", by_key, grant_id, details)
        log.info("credit_grant_voided", grant_id=grant_id)
        self._wakes.relay()
        return replace(grant, void_time=now, balance=ZERO)

    async def debit_credits(
        self, tenant: TenantKey, given: DebitInput, *, by_key: str = ""
    ) -> Wallet:
        """Take credit off by hand; PreconditionError, and nothing changes, when there is less."""
        checks = FieldChecks()
        check_reason(checks, given.reason, 1)
        async with self._database.transaction() as connection:
            customer = await _require_customer(connection, tenant, given.customer_id)
            now = await self._now_of(connection, tenant, given.customer_id)
            alone = await _alone(connection, tenant, given.customer_id)
            currency = check_credit_currency(checks, given.currency, customer, alone)
            amount = check_credit(checks, given.amount, "amount", currency)
            checks.done()
            owner = (given.customer_id, currency)
            wallet = await ledger.lock_wallet(connection, tenant, owner, now)
            grants = await ledger.open_grants(connection, tenant, [owner])
            movements = debits(grants, amount, given.reason, now)
            (after,) = await move(connection, tenant, [wallet], movements, now)
            details = {
                "amount": format_money(amount, currency),
                "currency": currency,
                "reason": given.reason,
                "balance": format_money(after.balance, currency),
            }
            customer_id = given.customer_id
            await note(connection, tenant, "credits.debited", by_key, customer_id, details)
        log.info("credits_debited", entries=len(movements))
        self._wakes.relay()
        return after

    async def _now_of(
        self, connection: AsyncConnection, tenant: TenantKey, customer_id: str
    ) -> datetime:
        """The customer's time: in test mode there may be a clock."""
        return now_of(await clocks.clock_of(connection, tenant, customer_id), self._now())

    async def list_balances(self, tenant: TenantKey, customer_id: str) -> list[Wallet]:
        """What credit a customer has, by currency."""
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id)
            return await ledger.list_wallets(connection, tenant, customer_id)

    async def set_low_balance(
        self,
        tenant: TenantKey,
        customer_id: str,
        currency: str,
        threshold: str,
        *,
        by_key: str = "",
    ) -> Wallet:
        """At which balance to tell that it is low; "": never. What is low already is not told."""
        checks = FieldChecks()
        async with self._database.transaction() as connection:
            customer = await _require_customer(connection, tenant, customer_id)
            alone = await _alone(connection, tenant, customer_id)
            currency = check_credit_currency(checks, currency, customer, alone)
            low = None
            if threshold:
                low = check_credit(checks, threshold, "lowBalance", currency, least=False)
            checks.done()
            owner = (customer_id, currency)
            wallet = await ledger.lock_wallet(connection, tenant, owner, self._now())
            after = replace(wallet, low_balance=low)
            if after != wallet:
                await ledger.set_low_balance(connection, tenant, owner, low)
                details = changes(_threshold(wallet), _threshold(after))
                action = "credits.threshold_changed"
                await note(connection, tenant, action, by_key, customer_id, details)
        return after

    async def list_grants(
        self, tenant: TenantKey, customer_id: str, page: Page
    ) -> tuple[list[CreditGrant], str]:
        """A page of a customer's grants."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "crg")
        async with self._database.transaction() as connection:
            await _require_customer(connection, tenant, customer_id)
            found = await ledger.list_grants(
                connection, tenant, customer_id, before_id=before_id, limit=limit + 1
            )
        return found[:limit], next_token([grant.id for grant in found], limit)

    async def list_entries(
        self, tenant: TenantKey, customer_id: str, currency: str, page: Page
    ) -> tuple[list[CreditEntry], str]:
        """A page of the ledger of one of a customer's wallets, newest first."""
        limit, before, checks = pages.page_limit(page.size), _position(page.token), FieldChecks()
        async with self._database.transaction() as connection:
            customer = await _require_customer(connection, tenant, customer_id)
            alone = await _alone(connection, tenant, customer_id)
            if not (currency or customer.currency or alone):
                if not await ledger.list_wallets(connection, tenant, customer_id):
                    return [], ""
                checks.require(False, "currency", "is required: the customer has several")
            currency = check_credit_currency(checks, currency, customer, alone)
            checks.done()
            owner = (customer_id, currency)
            found = await ledger.list_entries(
                connection, tenant, owner, before=before, limit=limit + 1
            )
        more = len(found) > limit
        token = pages.encode_token(str(found[limit - 1].sequence)) if more else ""
        return found[:limit], token


def _shown(grant: CreditGrant) -> dict[str, object]:
    """What the audit log tells of a grant, with the names of the HTTP contract."""
    expires = grant.expire_time
    return {
        "customerId": grant.customer_id,
        "amount": format_money(grant.amount, grant.currency),
        "balance": format_money(grant.balance, grant.currency),
        "currency": grant.currency,
        "kind": grant.kind.value,
        "priority": grant.priority,
        "expiresAt": None if expires is None else rfc3339(expires),
    }


def _threshold(wallet: Wallet) -> dict[str, object]:
    low = wallet.low_balance
    shown = None if low is None else format_money(low, wallet.currency)
    return {f"lowBalance {wallet.currency}": shown}


def _position(token: str) -> int | None:
    """The sequence before which a page begins; None for the first page."""
    if not token:
        return None
    (sequence,) = pages.decode_token(token, 1)
    if not (sequence.isascii() and sequence.isdecimal() and len(sequence) <= 18):
        raise pages.invalid_token()
    return int(sequence)


async def _alone(connection: AsyncConnection, tenant: TenantKey, customer_id: str) -> str:
    """The currency of a customer's only wallet; "" when there is none, or several."""
    wallets = await ledger.list_wallets(connection, tenant, customer_id)
    return wallets[0].currency if len(wallets) == 1 else ""


async def _require_customer(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str
) -> Customer:
    found = None
    if is_customer_id(customer_id):
        found = await customers.get_customer(connection, tenant, customer_id)
    if found is None:
        raise NotFoundError("No such customer")
    return found


async def _require_grant(
    connection: AsyncConnection, tenant: TenantKey, customer_id: str, grant_id: str
) -> CreditGrant:
    found = None
    if is_id(grant_id, "crg"):
        found = await ledger.get_grant(connection, tenant, grant_id)
    if found is None or found.customer_id != customer_id:
        raise NotFoundError("No such grant")
    return found
