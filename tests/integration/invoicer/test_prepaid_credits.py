"""Prepaid credits pay invoices when those are finalized, and a ledger says where they went."""

import asyncio
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import CustomerInput
from services.invoicer.credit_checks import DebitInput, GrantInput
from services.invoicer.credit_expiry import CreditExpiry
from services.invoicer.credits import CreditEntry, CreditGrant
from services.invoicer.domain import Invoice, InvoiceStatus
from services.invoicer.exact import total
from services.invoicer.service.paging import Page
from services.invoicer.term_checks import ChargeInput, CreditNoteInput, TaxRateInput
from services.kit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
CUSTOMER = "user_123"


async def grant(world: World, amount: str, **more: Any) -> CreditGrant:
    """Credit for the customer, who comes into being."""
    given = GrantInput(**{"customer_id": CUSTOMER, "amount": amount, "currency": "USD", **more})
    await world.customers.put_customer(world.tenant, CustomerInput(given.customer_id))
    return await world.credits.grant_credits(world.tenant, given)


async def balance(world: World) -> str:
    (wallet,) = await world.credits.list_balances(world.tenant, CUSTOMER)
    entries = await ledger(world)
    # The ledger is the balance, from the first entry on.
    assert total(each.amount for each in entries) == wallet.balance == entries[-1].balance
    assert [each.sequence for each in entries] == list(range(1, len(entries) + 1))
    return f"{wallet.balance:.2f}"


async def ledger(world: World) -> list[CreditEntry]:
    """Oldest first."""
    found, _ = await world.credits.list_entries(world.tenant, CUSTOMER, "", Page(100))
    return found[::-1]


async def told(world: World) -> list[tuple[str, int]]:
    """What happened to credit, and how much."""
    return [(each.kind.value, int(each.amount)) for each in await ledger(world)]


async def charged(world: World, price: str, customer_id: str = CUSTOMER) -> Invoice:
    """An invoice at once."""
    given = ChargeInput(customer_id, "D", price, currency="USD", timing="NOW")
    made, _ = await world.charges.create_charge(world.tenant, given)
    return await world.invoices.get_invoice(world.tenant, made.invoice_id)


def settled(invoice: Invoice) -> tuple[str, str, str]:
    """What credit paid, what is due, and the state."""
    paid, due = invoice.credits_applied, invoice.amount_due
    return (f"{paid:.2f}", f"{due:.2f}", invoice.status.value)


async def events(world: World, kind: str) -> list[dict[str, Any]]:
    async with world.database.transaction() as connection:
        rows = await connection.execute(text("SELECT payload FROM outbox ORDER BY create_time"))
        found = [events_pb2.BillingEvent.FromString(payload) for payload in rows.scalars()]
    return [json.loads(each.data_json) for each in found if each.type == kind]


async def test_credit_pays_invoices_after_tax_until_it_is_used_up(world: World) -> None:
    rate = await world.taxes.create_tax_rate(world.tenant, TaxRateInput("VAT", "19"))
    await world.taxes.assign_tax_rates(world.tenant, "", [rate.id])
    await grant(world, "150")
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    preview = await world.invoices.preview_invoice(world.tenant, subscription.id)
    assert preview.credits_applied == preview.projected_credits == 119
    world.at(MARCH + GRACE)
    assert await world.close_all() == 2
    first, second = await world.all_invoices()
    # 100.00 and 19.00 of tax, whatever pays them.
    assert first.amount == second.amount == 119
    assert settled(first) == ("119.00", "0.00", "PAID")
    assert settled(second) == ("31.00", "88.00", "PENDING")
    assert await told(world) == [("GRANT", 150), ("APPLY", -119), ("APPLY", -31)]
    assert await balance(world) == "0.00"
    made = await events(world, "invoice.created")
    created = [(each["status"], each["amountDue"]) for each in made]
    assert created == [("PENDING", "0.00"), ("PENDING", "88.00")]
    (paid,) = await events(world, "invoice.paid")
    assert (paid["invoiceId"], paid["creditsApplied"], paid["sequence"]) == (first.id, "119.00", 2)


async def test_grants_are_used_in_their_order_and_others_not_at_all(world: World) -> None:
    last = await grant(world, "10", priority=90)
    soon = await grant(world, "10", expire_time=world.clock.time + timedelta(days=2))
    first = await grant(world, "10", priority=1, kind="PROMOTIONAL")
    await grant(world, "10", currency="EUR")
    await grant(world, "10", customer_id="somebody else")
    invoice = await charged(world, "25")
    assert settled(invoice) == ("25.00", "0.00", "PAID")
    found, _ = await world.credits.list_entries(world.tenant, CUSTOMER, "USD", Page(3))
    assert [(each.grant_id, int(each.amount), each.invoice_id) for each in found[::-1]] == [
        (first.id, -10, invoice.id),
        (soon.id, -10, invoice.id),
        (last.id, -5, invoice.id),
    ]
    grants, _ = await world.credits.list_grants(world.tenant, CUSTOMER, Page())
    assert [int(each.balance) for each in grants] == [10, 0, 0, 5]


async def test_a_void_invoice_gives_its_credit_back(world: World) -> None:
    await grant(world, "30")
    invoice = await charged(world, "50")
    assert invoice.amount_due == 20
    voided = await world.invoices.void_invoice(world.tenant, invoice.id)
    assert settled(voided) == ("0.00", "0.00", "VOID")
    assert await told(world) == [("GRANT", 30), ("APPLY", -30), ("RETURN", 30)]
    assert (await ledger(world))[-1].reason == f"{invoice.number} is void"
    await world.invoices.void_invoice(world.tenant, invoice.id)
    assert await balance(world) == "30.00"
    again = await charged(world, "10")
    assert (again.status, await balance(world)) == (InvoiceStatus.PAID, "20.00")


async def test_credit_that_an_open_invoice_needs_no_more_comes_back(world: World) -> None:
    await grant(world, "70")
    invoice = await charged(world, "100")
    credit = CreditNoteInput(invoice.id, "R", ((1, "20"),))
    await world.credit_notes.create_credit_note(world.tenant, credit)
    assert await balance(world) == "0.00"
    await world.credit_notes.create_credit_note(world.tenant, credit)
    assert await balance(world) == "10.00"
    (found,) = await world.all_invoices()
    assert found.credited == 40
    # Nothing is due any more: it is paid, and what else is credited is a refund.
    assert settled(found) == ("60.00", "0.00", "PAID")
    rest = CreditNoteInput(invoice.id, "R", refund_to_credits=True)
    await world.credit_notes.create_credit_note(world.tenant, rest)
    assert await balance(world) == "70.00"


async def test_a_paid_invoice_is_refunded_to_credit_that_does_not_expire(world: World) -> None:
    await grant(world, "40", expire_time=world.clock.time + timedelta(days=1))
    invoice = await charged(world, "30")
    assert invoice.status is InvoiceStatus.PAID
    given = CreditNoteInput(invoice.id, "R", ((1, "12.50"),), refund_to_credits=True)
    note, _ = await world.credit_notes.create_credit_note(world.tenant, given)
    grants, _ = await world.credits.list_grants(world.tenant, CUSTOMER, Page())
    refund = grants[0]
    assert (refund.id, refund.credit_note_id) == (note.draft.refund_reference, note.id)
    assert (refund.amount, refund.balance, refund.expire_time) == (Decimal("12.5"),) * 2 + (None,)
    assert refund.description == "Refund of CN-000001"
    assert await balance(world) == "22.50"
    (found,) = await world.all_invoices()
    assert settled(found) == ("30.00", "0.00", "PAID")
    both = CreditNoteInput(invoice.id, "R", (), "re_1", refund_to_credits=True)
    with pytest.raises(InvalidArgumentError, match="refundReference"):
        await world.credit_notes.create_credit_note(world.tenant, both)
    unpaid = await charged(world, "500")
    with pytest.raises(PreconditionError) as caught:
        await world.credit_notes.create_credit_note(
            world.tenant, CreditNoteInput(unpaid.id, "R", refund_to_credits=True)
        )
    assert caught.value.reason == "invoice_not_paid"


async def test_what_expires_leaves_the_wallet_once_and_is_told(world: World) -> None:
    expire_time = world.clock.time + timedelta(days=1)
    over = await grant(world, "10", expire_time=expire_time)
    await grant(world, "5", expire_time=expire_time)
    await grant(world, "7")
    expiries = [
        CreditExpiry(world.database, world.clock, lambda: world.wakes.append("expired"), 1)
        for _ in range(3)
    ]
    assert await expiries[0].expire() == 0
    world.at(expire_time)
    # What has expired pays nothing, whether the ledger says so yet or not.
    assert (await charged(world, "1")).status is InvoiceStatus.PAID
    done = await asyncio.gather(*(each.expire() for each in expiries))
    assert sorted(done) == [0, 0, 1]
    assert world.wakes[-1] == "expired"
    assert (await told(world))[3:] == [("APPLY", -1), ("EXPIRE", -10), ("EXPIRE", -5)]
    assert await balance(world) == "6.00"
    first, second = await events(world, "credits.expired")
    assert (first["grantId"], first["amount"], first["balance"]) == (over.id, "10.00", "11.00")
    assert (second["balance"], second["sequence"]) == ("6.00", 6)
    assert await expiries[0].expire() == 0


async def test_credit_of_who_is_on_a_test_clock_expires_by_that(world: World) -> None:
    """The next customer's does not, nor that of the same one in live mode."""
    await grant(world, "10", expire_time=MARCH)
    await grant(world, "10", expire_time=MARCH, customer_id="by real time")
    clock = await world.clocks.create_clock(world.tenant, CUSTOMER, None)
    await world.go_on()
    await world.clocks.advance_clock(world.tenant, clock.id, MARCH)
    await world.go_on()
    assert (await charged(world, "1")).status is InvoiceStatus.PENDING
    expiry = CreditExpiry(world.database, world.clock, lambda: None, 1)
    # The clock has arrived: what was due on its way is done.
    assert await expiry.expire() == 0
    assert await told(world) == [("GRANT", 10), ("EXPIRE", -10)]
    assert (await ledger(world))[-1].create_time == MARCH
    with pytest.raises(InvalidArgumentError, match="expiresAt: must be in the future"):
        await grant(world, "1", expire_time=FEBRUARY)
    world.at(MARCH)
    assert await expiry.expire() == 1


async def test_a_low_balance_is_told_once_each_time_it_comes_down_to_it(world: World) -> None:
    await grant(world, "100")
    await world.credits.set_low_balance(world.tenant, CUSTOMER, "", "20")
    for price in ("70", "10", "5", "5"):
        await charged(world, price)
    (low,) = await events(world, "credits.low_balance")
    assert (low["customerId"], low["balance"], low["threshold"]) == (CUSTOMER, "20.00", "20.00")
    assert low["sequence"] == 3
    await grant(world, "50")
    await world.credits.debit_credits(world.tenant, DebitInput(CUSTOMER, "55", "by hand"))
    assert [each["balance"] for each in await events(world, "credits.low_balance")] == [
        "20.00",
        "5.00",
    ]
    await world.credits.set_low_balance(world.tenant, CUSTOMER, "USD", "")
    (wallet,) = await world.credits.list_balances(world.tenant, CUSTOMER)
    assert wallet.low_balance is None


async def test_a_void_grant_keeps_what_it_paid_and_loses_the_rest(world: World) -> None:
    void = await grant(world, "50")
    invoice = await charged(world, "80")
    more = await grant(world, "60")
    await world.credits.void_grant(world.tenant, CUSTOMER, more.id, "a mistake")
    voided = await world.credits.void_grant(world.tenant, CUSTOMER, more.id, "again")
    assert (str(voided.balance), voided.void_time) == ("0", world.clock.time)
    assert await told(world) == [("GRANT", 50), ("APPLY", -50), ("GRANT", 60), ("VOID", -60)]
    await world.credits.void_grant(world.tenant, CUSTOMER, void.id, "")
    # What comes back to a void grant leaves at once.
    await world.invoices.void_invoice(world.tenant, invoice.id)
    assert (await told(world))[4:] == [("RETURN", 50), ("VOID", -50)]
    assert await balance(world) == "0.00"
    with pytest.raises(NotFoundError):
        await world.credits.void_grant(world.tenant, "somebody else", void.id, "")


async def test_many_finalizers_of_one_wallet_never_use_more_than_there_is(world: World) -> None:
    """They meet with debits, grants, voids and each other; none of them is lost in a deadlock."""
    await grant(world, "100")
    for number in range(12):
        await world.subscribe(f"user_{number % 3}", start=JANUARY, plan=pro_plan(metrics=[]))
        await grant(world, "150", customer_id=f"user_{number % 3}")
    world.at(FEBRUARY + GRACE)
    closers = [world.new_closer(chunk_max=3, batch_max=3) for _ in range(4)]

    async def close(closer: Any) -> None:
        while await closer.close_chunk():
            pass

    async def spend() -> None:
        invoice = await charged(world, "7")
        if invoice.status is not InvoiceStatus.PAID:
            await world.invoices.void_invoice(world.tenant, invoice.id)

    debit = DebitInput(CUSTOMER, "9", "R")
    answers = await asyncio.gather(
        *(close(closer) for closer in closers),
        *(spend() for _ in range(10)),
        *(world.credits.debit_credits(world.tenant, debit) for _ in range(10)),
        *(grant(world, "1") for _ in range(5)),
        return_exceptions=True,
    )
    refused = [each for each in answers if isinstance(each, BaseException)]
    assert {type(each) for each in refused} <= {PreconditionError}
    await world.close_all()
    invoices = await world.all_invoices()
    assert len(invoices) == 12 + 10
    paid = [each for each in invoices if each.subscription_id]
    assert {settled(each) for each in paid} == {("100.00", "0.00", "PAID")}
    assert len(paid) == 12
    async with world.database.transaction() as connection:
        rows = await connection.execute(text(UNEVEN))
        assert rows.all() == []
    assert Decimal(await balance(world)) >= 0


# Wallets and grants whose balance is not what their entries come to.
UNEVEN = """
    SELECT w.customer_id FROM credit_wallets w WHERE balance <> (
        SELECT coalesce(sum(amount), 0) FROM credit_entries e
        WHERE (e.organization_id, e.mode, e.customer_id, e.currency)
            = (w.organization_id, w.mode, w.customer_id, w.currency)
    ) UNION ALL SELECT g.id FROM credit_grants g WHERE balance <> (
        SELECT coalesce(sum(amount), 0) FROM credit_entries e
        WHERE (e.organization_id, e.mode, e.grant_id) = (g.organization_id, g.mode, g.id)
    )
"""


async def test_what_is_wrong_with_credit_is_named(world: World) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput(CUSTOMER, currency="EUR"))
    given = GrantInput(
        CUSTOMER,
        "0.001",
        "USD",
        "GIFT",
        101,
        "x" * 501,
        "[]",
        world.clock.time,
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await world.credits.grant_credits(world.tenant, given)
    assert [problem.field for problem in caught.value.problems] == [
        "kind",
        "priority",
        "description",
        "metadata",
        "expiresAt",
        "currency",
    ]
    for amount, message in (("0.001", "at most 2 digits"), ("0", "more than 0"), ("-1", "least 0")):
        with pytest.raises(InvalidArgumentError, match=f"amount.*{message}"):
            await world.credits.grant_credits(world.tenant, GrantInput(CUSTOMER, amount))
    with pytest.raises(InvalidArgumentError, match="reason"):
        await world.credits.debit_credits(world.tenant, DebitInput(CUSTOMER, "1", ""))
    with pytest.raises(PreconditionError, match="nothing is left"):
        await world.credits.debit_credits(world.tenant, DebitInput(CUSTOMER, "1", "R"))
    assert await world.credits.list_balances(world.tenant, CUSTOMER) == []


async def test_credit_belongs_to_a_tenant_and_lists_have_pages(world: World) -> None:
    made = [await grant(world, "1") for _ in range(3)]
    page, token = await world.credits.list_grants(world.tenant, CUSTOMER, Page(2))
    assert [each.id for each in page] == [made[2].id, made[1].id]
    rest, end = await world.credits.list_grants(world.tenant, CUSTOMER, Page(2, token))
    assert ([each.id for each in rest], end) == ([made[0].id], "")
    entries, token = await world.credits.list_entries(world.tenant, CUSTOMER, "USD", Page(2))
    assert [each.sequence for each in entries] == [3, 2]
    entries, end = await world.credits.list_entries(world.tenant, CUSTOMER, "", Page(2, token))
    assert ([each.sequence for each in entries], end) == ([1], "")
    for stranger in (new_tenant(), world.tenant._replace(mode="live")):
        with pytest.raises(NotFoundError):
            await world.credits.list_entries(stranger, CUSTOMER, "USD", Page())
        await world.customers.put_customer(stranger, CustomerInput(CUSTOMER))
        assert await world.credits.list_balances(stranger, CUSTOMER) == []
        assert await world.credits.list_entries(stranger, CUSTOMER, "", Page()) == ([], "")
        with pytest.raises(NotFoundError):
            await world.credits.void_grant(stranger, CUSTOMER, made[0].id, "")


_ENTRY = (
    "INSERT INTO credit_entries (organization_id, mode, customer_id, currency, grant_id, kind, "
    "amount, invoice_id, reason, create_time) SELECT g.organization_id, g.mode, g.customer_id, "
    "g.currency, g.id, {}, '', now() FROM credit_grants g WHERE amount = 60"
)
_OPEN = "(SELECT id FROM invoices WHERE status = 'PENDING')"


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE credit_wallets SET balance = 1", "by entries of the ledger only"),
        ("UPDATE credit_wallets SET newest_sequence = 9", "by entries of the ledger only"),
        ("UPDATE credit_grants SET balance = 1", "nothing of a grant changes"),
        ("UPDATE credit_grants SET amount = 1000", "nothing of a grant changes"),
        ("UPDATE credit_grants SET expire_time = 'infinity'", "nothing of a grant changes"),
        ("UPDATE credit_grants SET void_time = now()", "a void grant has nothing left"),
        ("UPDATE credit_entries SET reason = 'x'", "UPDATE of credit_entries is refused"),
        ("DELETE FROM credit_entries", "DELETE of credit_entries is refused"),
        ("DELETE FROM credit_wallets", "DELETE of credit_wallets is refused"),
        ("TRUNCATE credit_entries", "TRUNCATE of credit_entries is refused"),
        (_ENTRY.format("'DEBIT', -61, NULL"), "ck_credit_(wallets|grants)_balance"),
        (_ENTRY.format("'VOID', 1, NULL"), "ck_credit_(grants_balance|entries_amount)"),
        (_ENTRY.format("'DEBIT', -0.001, NULL"), "counted in minor units"),
        (_ENTRY.format("'GRANT', 60, NULL"), "ck_credit_grants_balance|uq_credit_entries_grant"),
        (_ENTRY.format(f"'APPLY', -1, {_OPEN}"), "while they are finalized"),
        (_ENTRY.format(f"'RETURN', 1, {_OPEN}"), "ck_credit_grants_balance|no more than it took"),
        ("UPDATE invoices SET status = 'VOID', void_time = now()", "goes back to its wallet"),
    ],
)
async def test_the_database_refuses(world: World, statement: str, why: str) -> None:
    await grant(world, "40")
    await charged(world, "50")
    await grant(world, "60")
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement))
    assert await balance(world) == "60.00"
