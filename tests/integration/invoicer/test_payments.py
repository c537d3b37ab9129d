"""Invoices that are collected by Stripe: its real SDK against a server that speaks its HTTP."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.credit_notes import CreditNote
from services.invoicer.domain import InvoiceStatus, SubscriptionStatus
from services.invoicer.payments.domain import (
    AttemptState,
    PaymentMethod,
    ProviderName,
)
from services.invoicer.service.billing_settings import SettingsInput
from services.invoicer.term_checks import CreditNoteInput
from services.kit.errors import InvalidArgumentError, PreconditionError
from tests.integration.invoicer.paying import API_KEY, DAY, FEBRUARY, LATER, Paying
from tests.integration.invoicer.stand_in_stripe import Does
from tests.integration.invoicer.stand_ins import (
    GRACE,
    PROVIDER_KEYS,
    World,
    new_tenant,
    pro_plan,
    utc,
)

MARCH, APRIL = utc("2026-03-01"), utc("2026-04-01")


async def expire_lease(world: World) -> None:
    """Let the time of a replica that was killed be over."""
    async with world.database.transaction() as connection:
        await connection.execute(text("UPDATE collections SET lease_time = '-infinity'"))


async def test_an_invoice_is_charged_when_it_is_final(paying: Paying) -> None:
    assert (await paying.collect()).status is InvoiceStatus.PAID
    (charge,) = paying.stripe.charges
    assert (charge["amount"], charge["currency"], charge["customer"]) == (11968, "usd", "cus_1")
    ((key, form),) = paying.stripe.requests
    assert key == form["metadata[usageflow_attempt]"] == f"usageflow-{paying.invoice.id}-1"
    assert (form["off_session"], form["confirm"], form["payment_method"]) == (
        "true",
        "true",
        "pm_1",
    )
    (attempt,) = await paying.attempts()
    assert (attempt.state, attempt.reference) == (AttemptState.SUCCEEDED, charge["id"])
    assert [kind for kind, _ in await paying.told("invoice", "payment")] == [
        "invoice.created",
        "invoice.paid",
        "payment.succeeded",
    ]
    assert (await paying.collect(after=DAY)).status is InvoiceStatus.PAID
    assert len(paying.stripe.requests) == 1


async def test_an_invoice_that_came_to_nothing_is_paid_without_being_charged(
    paying: Paying,
) -> None:
    world = paying.world
    free = await world.subscribe(start=MARCH, plan=pro_plan(base_price="0", metrics=[]))
    world.at(APRIL + GRACE)
    while await world.close_all():
        pass
    await paying.collect(after=60 * DAY)
    (nothing,) = [each for each in await world.all_invoices() if each.subscription_id == free.id]
    assert (nothing.status, nothing.amount) == (InvoiceStatus.PAID, Decimal(0))
    assert (nothing.number, nothing.finalize_time) == ("INV-000003", APRIL + GRACE)
    told = await paying.told("invoice")
    mine = [(kind, data["status"]) for kind, data in told if data["invoiceId"] == nothing.id]
    assert mine == [("invoice.created", "PENDING"), ("invoice.paid", "PAID")]
    assert {charge["amount"] for charge in paying.stripe.charges} == {11968, 10000}
    attempts, _ = await world.payments.list_attempts(world.tenant, nothing.id)
    assert attempts == []


async def test_what_is_declined_is_tried_again_and_suspends_in_the_end(paying: Paying) -> None:
    invoice = await paying.collect(Does.DECLINE)
    assert (invoice.status, await paying.status()) == (
        InvoiceStatus.FAILED,
        SubscriptionStatus.ACTIVE,
    )
    await paying.collect(after=DAY - timedelta(seconds=1))
    assert len(paying.stripe.requests) == 1
    await paying.collect(Does.DECLINE, after=timedelta(seconds=1))
    assert await paying.status() is SubscriptionStatus.ACTIVE
    invoice = await paying.collect(Does.DECLINE, after=2 * DAY)
    assert (invoice.failed_payments, await paying.status()) == (3, SubscriptionStatus.SUSPENDED)
    await paying.collect(after=60 * DAY)
    assert len(paying.stripe.requests) == 3
    events = await paying.told("payment")
    assert [(kind, data["attempt"], data.get("nextAttemptAt")) for kind, data in events] == [
        ("payment.failed", 1, "2026-02-02T01:00:00Z"),
        ("payment.retry_scheduled", 1, "2026-02-02T01:00:00Z"),
        ("payment.failed", 2, "2026-02-04T01:00:00Z"),
        ("payment.retry_scheduled", 2, "2026-02-04T01:00:00Z"),
        ("payment.failed", 3, None),
    ]
    assert {data["errorCode"] for _, data in events} == {"insufficient_funds"}
    numbers = [data["sequence"] for _, data in events]
    assert numbers == sorted(set(numbers))

    await paying.world.payments.collect_invoice(paying.world.tenant, invoice.id)
    told = await paying.world.audited()
    assert [each.target_id for each in told if each.action == "invoice.collected"] == [invoice.id]
    assert (await paying.collect()).status is InvoiceStatus.PAID
    assert await paying.status() is SubscriptionStatus.ACTIVE


async def test_an_answer_that_never_comes_is_asked_for_and_charges_once(paying: Paying) -> None:
    paying.stripe.script.append(Does.SUCCEED_AND_HANG)
    await paying.new_collector(timeout_s=0.5).collect_batch()
    (attempt,) = await paying.attempts()
    assert attempt.state is AttemptState.PENDING
    world, tenant = paying.world, paying.world.tenant
    for refused in (
        world.invoices.pay_invoice(tenant, paying.invoice.id),
        world.invoices.fail_invoice(tenant, paying.invoice.id),
        world.invoices.void_invoice(tenant, paying.invoice.id),
        world.payments.collect_invoice(tenant, paying.invoice.id),
        world.credit_notes.create_credit_note(tenant, CreditNoteInput(paying.invoice.id, "R")),
    ):
        with pytest.raises(PreconditionError, match="just being paid"):
            await refused
    assert (await paying.collect(after=LATER)).status is InvoiceStatus.PAID
    (attempt,) = await paying.attempts()
    assert (attempt.state, attempt.reference) == (AttemptState.SUCCEEDED, "pi_1")
    assert len(paying.stripe.charges) == 1


@pytest.mark.parametrize("does", [Does.LIMIT, Does.SUCCEED_AND_BREAK])
async def test_troubles_of_stripe_are_no_failures(paying: Paying, does: Does) -> None:
    assert (await paying.collect(does)).status is InvoiceStatus.PENDING
    invoice = await paying.collect(after=LATER)
    assert (invoice.status, invoice.failed_payments) == (InvoiceStatus.PAID, 0)
    assert len(paying.stripe.charges) == len(await paying.attempts()) == 1


async def test_an_error_that_stripe_repeats_ends_when_it_has_forgotten_the_key(
    paying: Paying,
) -> None:
    await paying.collect(Does.BREAK)
    assert (await paying.collect(after=LATER)).status is InvoiceStatus.PENDING
    paying.stripe.answers.clear()
    assert (await paying.collect(after=DAY)).status is InvoiceStatus.PAID
    assert len({key for key, _ in paying.stripe.requests}) == len(paying.stripe.charges) == 1


async def test_a_debit_is_decided_later(paying: Paying) -> None:
    assert (await paying.collect(Does.PROCESS)).status is InvoiceStatus.PENDING
    assert (await paying.collect(after=DAY)).status is InvoiceStatus.PENDING
    paying.stripe.intents["pi_1"]["status"] = "succeeded"
    assert (await paying.collect(after=DAY)).status is InvoiceStatus.PAID
    assert len(paying.stripe.requests) == 1


async def test_a_replica_that_is_killed_between_charge_and_commit_charges_once(
    paying: Paying, database_url: str, tmp_path: Path
) -> None:
    """It is killed by signal 9 while Stripe's answer is on its way."""
    paying.stripe.script.append(Does.SUCCEED_AND_HANG)
    program = tmp_path / "replica.py"
    program.write_text(_REPLICA)
    now = paying.world.clock.time.isoformat()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(program), database_url, paying.stripe.url, now),
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    charged = asyncio.ensure_future(paying.stripe.charged.wait())
    ended = asyncio.ensure_future(process.wait())
    await asyncio.wait((charged, ended), return_when=asyncio.FIRST_COMPLETED)
    assert charged.done()
    os.kill(process.pid, signal.SIGKILL)
    await ended
    assert [each.state for each in await paying.attempts()] == [AttemptState.PENDING]
    assert (await paying.collect()).status is InvoiceStatus.PAID
    assert len(paying.stripe.charges) == len(await paying.attempts()) == 1


async def test_replicas_without_leases_charge_each_invoice_once(paying: Paying) -> None:
    world = paying.world
    for number in range(10):
        customer_id = f"user_{number}"
        await world.subscribe(customer_id, start=FEBRUARY)
        method = PaymentMethod(ProviderName.STRIPE, f"cus_{number + 10}", "pm_1")
        await world.payments.set_method(world.tenant, customer_id, method, by_key="")
    world.at(utc("2026-03-01") + GRACE)
    await world.close_all()
    replicas = [paying.new_collector() for _ in range(3)]
    for _ in range(4):
        await asyncio.gather(*(each.collect_batch() for each in replicas))
        world.at(world.clock.time + LATER)
    found = await world.all_invoices()
    assert len(found) == 12
    assert {each.status for each in found} == {InvoiceStatus.PAID}
    assert len(paying.stripe.charges) == 12


async def test_what_is_credited_is_not_charged(paying: Paying) -> None:
    given = CreditNoteInput(paying.invoice.id, "Sorry", lines=[(1, "20.00")])
    note, _ = await paying.world.credit_notes.create_credit_note(paying.world.tenant, given)
    assert isinstance(note, CreditNote)
    await paying.collect()
    assert [each["amount"] for each in paying.stripe.charges] == [9968]


@pytest.mark.parametrize("paid", [True, False])
async def test_without_the_key_the_organization_tells_what_came_of_an_attempt(
    paying: Paying, paid: bool
) -> None:
    """It looks at Stripe's pages; nobody can ask there any more, and nothing else is refused."""
    world, tenant, invoice_id = paying.world, paying.world.tenant, paying.invoice.id
    invoices = world.invoices
    tell = invoices.pay_invoice if paid else invoices.fail_invoice
    # Killed after Stripe was called, with its lease.
    collector = paying.new_collector(lease=timedelta(minutes=2))
    paying.stripe.script.append(Does.SUCCEED_AND_HANG)
    collecting = asyncio.ensure_future(collector.collect_batch())
    await paying.stripe.charged.wait()
    with pytest.raises(PreconditionError, match="just being paid"):
        await tell(tenant, invoice_id, "pi_7")
    gone = SettingsInput(provider=ProviderName.MANUAL, stripe_api_key="")
    await world.settings.update_settings(tenant, gone, by_key="key_1")
    # Whoever has begun it may still get its answer.
    with pytest.raises(PreconditionError, match="just being paid"):
        await tell(tenant, invoice_id, "pi_7")
    collecting.cancel()
    await expire_lease(world)
    await paying.collect()  # there is nobody to ask
    await tell(tenant, invoice_id, "pi_7")
    state = AttemptState.SUCCEEDED if paid else AttemptState.FAILED
    attempts = [(each.number, each.state, each.reference) for each in await paying.attempts()]
    assert attempts == [(1, state, "pi_7")]
    if not paid:
        assert (await invoices.void_invoice(tenant, invoice_id)).status is InvoiceStatus.VOID
    await paying.collect(after=60 * DAY)
    assert len(paying.stripe.requests) == 1


async def test_what_the_organization_tells_is_an_attempt_too(paying: Paying) -> None:
    world, tenant, invoice_id = paying.world, paying.world.tenant, paying.invoice.id
    await world.invoices.fail_invoice(tenant, invoice_id, "cheque 7")
    await world.invoices.pay_invoice(tenant, invoice_id, "wire 8")
    told = [(each.number, each.state, each.reference) for each in await paying.attempts()]
    assert told == [(1, AttemptState.FAILED, "cheque 7"), (2, AttemptState.SUCCEEDED, "wire 8")]
    await paying.collect(after=60 * DAY)
    assert paying.stripe.requests == []
    with pytest.raises(InvalidArgumentError, match="reference: must have at most 200"):
        await world.invoices.pay_invoice(tenant, invoice_id, "x" * 201)


async def test_without_provider_or_method_nothing_is_collected(paying: Paying) -> None:
    world, tenant = paying.world, paying.world.tenant
    await world.payments.remove_method(tenant, "user_123", by_key="")
    await paying.collect()
    assert (await paying.attempts(), paying.stripe.requests) == ([], [])
    with pytest.raises(PreconditionError, match="can't be collected"):
        await world.payments.collect_invoice(tenant, paying.invoice.id)


async def test_a_wrong_key_is_a_failure_that_says_so(paying: Paying) -> None:
    paying.stripe.api_key = "sk_test_another"
    invoice = await paying.collect()
    assert invoice.status is InvoiceStatus.FAILED
    (attempt,) = await paying.attempts()
    assert attempt.error_message == "Invalid API Key provided"


async def test_a_key_is_stored_sealed_and_shown_by_its_end(paying: Paying) -> None:
    world = paying.world
    shown = await world.settings.get_settings(world.tenant)
    assert shown.provider_key_hint == "…p7dc"
    async with world.database.transaction() as connection:
        for table in ("billing_settings", "audit_outbox", "outbox"):
            rows = await connection.execute(text(f"SELECT CAST(t AS text) FROM {table} t"))
            stored = "".join(rows.scalars())
            assert stored
            assert API_KEY not in stored
            assert API_KEY.encode().hex() not in stored
    other = new_tenant()
    sealed = shown.sealed_provider_key
    assert sealed is not None
    with pytest.raises(Exception, match="does not open"):
        PROVIDER_KEYS.open(other, sealed)
    for wrong in ("sk_live_x", "pk_test_x", "sk_test_\n"):
        with pytest.raises(InvalidArgumentError, match="stripeApiKey"):
            given = SettingsInput(stripe_api_key=wrong)
            await world.settings.update_settings(world.tenant, given, by_key="")
    with pytest.raises(InvalidArgumentError, match="stripeApiKey: must be given"):
        given = SettingsInput(stripe_api_key="")
        await world.settings.update_settings(world.tenant, given, by_key="")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE payment_attempts SET amount = 1",
        "UPDATE payment_attempts SET state = 'FAILED'",
        "UPDATE payment_attempts SET reference = 'x'",
        "DELETE FROM payment_attempts",
        "TRUNCATE payment_attempts",
        "INSERT INTO payment_attempts SELECT (p).* FROM (SELECT jsonb_populate_record(a,"
        " '{\"number\": 3}') AS p FROM payment_attempts a) AS copies",
        "INSERT INTO payment_attempts SELECT (p).* FROM (SELECT jsonb_populate_record(a,"
        " '{\"number\": 2}') AS p FROM payment_attempts a) AS copies",
    ],
)
async def test_attempts_never_change_and_an_invoice_is_paid_once(
    paying: Paying, change: str
) -> None:
    await paying.collect()
    before = await paying.attempts()
    assert before[0].amount == Decimal("119.68")
    with pytest.raises(DBAPIError):
        async with paying.world.database.transaction() as connection:
            await connection.execute(text(change))
    assert await paying.attempts() == before


async def test_while_another_invoice_is_not_paid_a_subscription_stays_suspended(
    paying: Paying,
) -> None:
    world, tenant = paying.world, paying.world.tenant
    world.at(utc("2026-03-01") + GRACE)
    await world.close_all()
    first, second = await world.all_invoices()
    for invoice in (first, second):
        for _ in range(3):
            await world.invoices.fail_invoice(tenant, invoice.id)
    await world.invoices.pay_invoice(tenant, first.id)
    assert await paying.status() is SubscriptionStatus.SUSPENDED
    await world.invoices.pay_invoice(tenant, second.id)
    assert await paying.status() is SubscriptionStatus.ACTIVE


_REPLICA = """
import asyncio, sys
from datetime import datetime, timedelta
from services.invoicer.payments.collector import Collector, CollectorSettings
from services.invoicer.payments.stripe_provider import StripeProviders
from services.kit.database import Database
from tests.integration.invoicer.stand_ins import PROVIDER_KEYS, RETRY_DAYS

async def main(url, stripe, now):
    settings = CollectorSettings(timedelta(0), 60, 1, 8, RETRY_DAYS)
    collector = Collector(Database(url), StripeProviders(60, stripe), PROVIDER_KEYS, settings,
        lambda: datetime.fromisoformat(now), lambda: None)
    await collector.collect_batch()

asyncio.run(main(*sys.argv[1:]))
"""
