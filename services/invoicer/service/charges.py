"""One-off charges."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer import audited
from services.invoicer.charges import ChargeTiming, OneOffCharge, charge_draft
from services.invoicer.checks import check_customer_id, is_customer_id
from services.invoicer.clocks import now_of
from services.invoicer.domain import Invoice, Subscription
from services.invoicer.repository import (
    charges,
    clocks,
    closing,
    customers,
    plans,
    subscriptions,
    taxes,
)
from services.invoicer.service.paging import Page, id_position, next_token
from services.invoicer.service.subscriptions import require_subscription
from services.invoicer.service.wakes import Wakes
from services.invoicer.term_checks import ChargeInput, check_charge
from services.invoicer.writer import tell_written, write_drafts
from services.kit import pages
from services.kit.database import Database, TenantKey
from services.kit.errors import ConflictError, FieldChecks, NotFoundError, PreconditionError
from services.kit.etag import Expectation
from services.kit.ids import is_id, new_id

log = structlog.get_logger()

# What one invoice can be made to carry.
WAITING_MAX = 200


class Charges:
    """What customers owe besides a plan's prices."""

    def __init__(self, database: Database, now: Callable[[], datetime], wakes: Wakes) -> None:
        self._database = database
        self._now = now
        self._wakes = wakes

    async def create_charge(
        self, tenant: TenantKey, given: ChargeInput
    ) -> tuple[OneOffCharge, bool]:
        """Charge a customer; whether an earlier call with the same key had done so.

        ConflictError when the key was used for something else.
        """
        checks = FieldChecks()
        check_customer_id(checks, given.customer_id, "customerId")
        content = check_charge(checks, given)
        checks.done()
        written: list[Invoice] = []
        async with self._database.transaction() as connection:
            earlier = await _sent_before(connection, tenant, given)
            if earlier is not None:
                return earlier, True
            subscription, currency = await _whose(connection, tenant, given, content.timing, checks)
            checks.done()
            clock = await clocks.clock_of(connection, tenant, given.customer_id)
            charge = OneOffCharge(
                id=new_id("chg"),
                customer_id=given.customer_id,
                subscription_id="" if subscription is None else subscription.id,
                description=content.description,
                quantity=content.quantity,
                unit_price=content.unit_price,
                currency=currency,
                timing=content.timing,
                create_time=now_of(clock, self._now()),
            )
            key, digest = given.idempotency_key, given.digest
            if not await charges.insert_charge(connection, tenant, charge, key, digest):
                earlier = await _sent_before(connection, tenant, given)
                assert earlier is not None
                return earlier, True
            shown = audited.charge(charge)
            await audited.note(connection, tenant, "charge.created", charge.id, shown)
            if subscription is None:
                written = await self._write(connection, tenant, charge)
                charge = replace(charge, invoice_id=written[0].id)
            else:
                await _let_wait(connection, tenant, subscription)
        log.info("charge_created", charge_id=charge.id)
        if written:
            tell_written(written)
            self._wakes.relay()
        return charge, False

    async def _write(
        self, connection: AsyncConnection, tenant: TenantKey, charge: OneOffCharge
    ) -> list[Invoice]:
        await closing.prefer_indexes(connection)
        now, customer = charge.create_time, (*tenant, charge.customer_id)
        rates = (await taxes.rates_of(connection, [customer])).get(customer, ())
        drafts = {new_id("inv"): charge_draft(charge, rates, now)}
        return await write_drafts(connection, tenant, drafts, now)

    async def get_charge(self, tenant: TenantKey, charge_id: str) -> OneOffCharge:
        """The charge."""
        async with self._database.transaction() as connection:
            return await _require_charge(connection, tenant, charge_id)

    async def list_charges(
        self, tenant: TenantKey, customer_id: str, page: Page
    ) -> tuple[list[OneOffCharge], str]:
        """A page of charges, of one customer or ("") of all."""
        limit, before_id = pages.page_limit(page.size), id_position(page.token, "chg")
        if customer_id and not is_customer_id(customer_id):
            return [], ""
        async with self._database.transaction() as connection:
            found = await charges.list_charges(
                connection, tenant, customer_id=customer_id, before_id=before_id, limit=limit + 1
            )
        return found[:limit], next_token([entry.id for entry in found], limit)

    async def delete_charge(
        self,
        tenant: TenantKey,
        charge_id: str,
        *,
        expect: Expectation[OneOffCharge] | None = None,
    ) -> None:
        """Take back a charge that waits; PreconditionError when it is on an invoice; StaleError
        when it is not as `expect` has it.
        """
        async with self._database.transaction() as connection:
            charge = await _require_charge(connection, tenant, charge_id)
            subscription = None
            if charge.subscription_id:
                subscription = await require_subscription(
                    connection, tenant, charge.subscription_id, lock=True
                )
                charge = await _require_charge(connection, tenant, charge_id)
            if expect is not None:
                expect(charge)
            if subscription is None or charge.invoice_id:
                raise PreconditionError("The charge is on an invoice", reason="charge_invoiced")
            await charges.delete_charge(connection, tenant, charge_id)
            shown = audited.charge(charge)
            await audited.note(connection, tenant, "charge.deleted", charge_id, shown)
            await subscriptions.update_subscription(connection, subscription)
        log.info("charge_deleted", charge_id=charge_id)


async def _sent_before(
    connection: AsyncConnection, tenant: TenantKey, given: ChargeInput
) -> OneOffCharge | None:
    """The charge that was made under the key; None: there is no key, or it is new."""
    if not given.idempotency_key:
        return None
    found = await charges.find_by_key(connection, tenant, given.idempotency_key)
    if found is None:
        return None
    charge, digest = found
    if digest != given.digest:
        raise ConflictError(
            "The idempotency key was used for another charge", reason="idempotency_conflict"
        )
    return charge


async def _whose(
    connection: AsyncConnection,
    tenant: TenantKey,
    given: ChargeInput,
    timing: ChargeTiming,
    checks: FieldChecks,
) -> tuple[Subscription | None, str]:
    """The subscription (locked) on whose next invoice a charge is to be, and the currency."""
    customer = await customers.get_customer(connection, tenant, given.customer_id)
    if customer is None:
        checks.require(False, "customerId", "there is no such customer")
        return None, ""
    if timing is ChargeTiming.NOW:
        currency = given.currency or customer.currency
        checks.require(bool(currency), "currency", "is required: the customer has none")
        same = not customer.currency or currency == customer.currency
        checks.require(same, "currency", f"the customer pays in {customer.currency}")
        return None, currency
    subscription = await _waiting_place(connection, tenant, given, checks)
    if subscription is None:
        return None, ""
    phase = subscription.phases[-1]  # all are in one currency
    plan = await plans.get_plan(connection, tenant, phase.plan_id, phase.plan_version)
    assert plan is not None
    currency = plan.content.currency
    same = given.currency in ("", currency)
    checks.require(same, "currency", f"the subscription is in {currency}")
    return subscription, currency


async def _waiting_place(
    connection: AsyncConnection, tenant: TenantKey, given: ChargeInput, checks: FieldChecks
) -> Subscription | None:
    """The one that is asked for, or the customer's only one that has not ended; locked."""
    subscription_id, message = given.subscription_id, "the customer has no such subscription"
    if not subscription_id:
        live = await subscriptions.list_live(connection, tenant, given.customer_id, limit=2)
        message = "the customer has none that has not ended: give timing NOW"
        if len(live) > 1:
            message = "is required: the customer has several"
        subscription_id = live[0] if len(live) == 1 else ""
    found = None
    if is_id(subscription_id, "sub"):
        found = await subscriptions.get_subscription(connection, tenant, subscription_id, lock=True)
    if found is not None and found.customer_id == given.customer_id:
        if found.period is not None:
            return found
        message = "has ended: give timing NOW"
    checks.require(False, "subscriptionId", message)
    return None


async def _let_wait(
    connection: AsyncConnection, tenant: TenantKey, subscription: Subscription
) -> None:
    """What is just being computed of the subscription is not written: it lacks the charge."""
    waiting = await charges.count_waiting(connection, tenant, subscription.id)
    if waiting > WAITING_MAX:
        raise PreconditionError(
            f"At most {WAITING_MAX} charges wait for one invoice", reason="too_many_charges"
        )
    stored = await subscriptions.update_subscription(connection, subscription)
    assert stored


async def _require_charge(
    connection: AsyncConnection, tenant: TenantKey, charge_id: str
) -> OneOffCharge:
    found = None
    if is_id(charge_id, "chg"):
        found = await charges.get_charge(connection, tenant, charge_id)
    if found is None:
        raise NotFoundError("No such charge")
    return found
