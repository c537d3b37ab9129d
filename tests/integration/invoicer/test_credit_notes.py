"""Credit notes: of a whole invoice, of lines, with their taxes, under gapless numbers."""

import asyncio
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import CustomerInput, MetricPriceInput
from services.invoicer.credit_checks import GrantInput
from services.invoicer.credit_notes import CreditNote
from services.invoicer.domain import Invoice, InvoiceStatus, SubscriptionStatus
from services.invoicer.exact import total
from services.invoicer.service.paging import Page
from services.invoicer.term_checks import (
    ChargeInput,
    CreditNoteInput,
    DiscountInput,
    TaxRateInput,
)
from services.kit.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})


def told(note: CreditNote) -> list[tuple[int, str]]:
    return [(line.position, str(line.amount)) for line in note.draft.lines]


async def invoiced(world: World, *rates: str, inclusive: bool = False, **plan: Any) -> Invoice:
    """100.00 and 12.50 for 1,250 calls, and the taxes."""
    made = [
        await world.taxes.create_tax_rate(world.tenant, TaxRateInput("VAT", each, inclusive))
        for each in rates
    ]
    await world.taxes.assign_tax_rates(world.tenant, "", [each.id for each in made])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[CALLS], **plan))
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "1250")
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    return (await world.all_invoices())[-1]


async def credit(
    world: World, invoice: Invoice, *lines: tuple[int, str], **more: Any
) -> CreditNote:
    given = CreditNoteInput(invoice.id, "Outage", lines, **more)
    return (await world.credit_notes.create_credit_note(world.tenant, given))[0]


async def events(world: World) -> list[events_pb2.BillingEvent]:
    async with world.database.transaction() as connection:
        rows = await connection.execute(text("SELECT payload FROM outbox"))
        return [events_pb2.BillingEvent.FromString(payload) for payload in rows.scalars()]


async def status_of(world: World, invoice: Invoice) -> SubscriptionStatus:
    found = await world.subscriptions.get_subscription(world.tenant, invoice.subscription_id)
    return found.status


async def test_all_of_an_invoice_is_credited_with_its_tax(world: World) -> None:
    invoice = await invoiced(world, "19")
    note = await credit(world, invoice)
    assert (note.number, note.draft.amount) == ("CN-000001", invoice.amount)
    assert told(note) == [(1, "100.00"), (2, "12.50"), (3, "21.38")]
    assert await world.credit_notes.get_credit_note(world.tenant, note.id) == note
    with pytest.raises(InvalidArgumentError, match="nothing of it is left to credit"):
        await credit(world, invoice)


async def test_lines_are_credited_in_parts_that_sum_to_the_invoice(world: World) -> None:
    invoice = await invoiced(world, "19")
    # 10.03 x 19 / 100 = 1.9057; 20.06 x 19 / 100 = 3.8114, less 1.91
    assert told(await credit(world, invoice, (1, "10.03"))) == [(1, "10.03"), (3, "1.91")]
    second = await credit(world, invoice, (1, "5.03"), (2, "5.00"))
    assert told(second) == [(1, "5.03"), (2, "5.00"), (3, "1.90")]
    rest = await credit(world, invoice)
    assert told(rest) == [(1, "84.94"), (2, "7.50"), (3, "17.57")]
    found, _ = await world.credit_notes.list_credit_notes(
        world.tenant, "user_123", invoice.id, Page()
    )
    assert total(note.draft.amount for note in found) == invoice.amount
    assert [note.number for note in found] == ["CN-000003", "CN-000002", "CN-000001"]


async def test_what_is_credited_of_an_open_invoice_is_due_no_more(world: World) -> None:
    """What comes back of a paid one is a refund: what was due of it stays as it was."""
    invoice = await invoiced(world)
    assert invoice.amount_due == invoice.amount == Decimal("112.50")
    await credit(world, invoice, (1, "40.00"))
    assert (await world.all_invoices())[0].amount_due == Decimal("72.50")
    await world.invoices.pay_invoice(world.tenant, invoice.id)
    await credit(world, invoice, (1, "20.00"), refund_reference="re_1")
    assert (await world.all_invoices())[0].amount_due == Decimal("72.50")


async def test_an_invoice_that_is_credited_to_nothing_is_paid(world: World) -> None:
    """The last credit note pays it; what is paid is charged, failed and suspended for no more."""
    invoice = await invoiced(world, "19")
    for _ in range(3):  # the last one that is tolerated, and one
        await world.invoices.fail_invoice(world.tenant, invoice.id)
    assert await status_of(world, invoice) is SubscriptionStatus.SUSPENDED
    await credit(world, invoice, (1, "100.00"))
    assert (await world.all_invoices())[0].status is InvoiceStatus.FAILED
    await credit(world, invoice)
    (paid,) = await world.all_invoices()
    assert (paid.status, str(paid.amount_due)) == (InvoiceStatus.PAID, "0.00")
    assert await status_of(world, invoice) is SubscriptionStatus.ACTIVE
    told = {each.type for each in await events(world)}
    assert {"invoice.paid", "subscription.changed"} <= told
    assert (await world.invoices.pay_invoice(world.tenant, invoice.id)) == paid
    with pytest.raises(PreconditionError, match="The invoice is paid"):
        await world.invoices.fail_invoice(world.tenant, invoice.id)


async def test_prepaid_credits_and_a_credit_note_pay_an_invoice_together(world: World) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    await world.credits.grant_credits(world.tenant, GrantInput("user_123", "60.00", "USD"))
    invoice = await invoiced(world)
    assert invoice.amount_due == Decimal("52.50")
    await credit(world, invoice, (1, "52.50"))
    (paid,) = await world.all_invoices()
    assert (paid.status, paid.credits_applied) == (InvoiceStatus.PAID, Decimal("60.00"))
    with pytest.raises(PreconditionError) as caught:
        await credit(world, invoice, (1, "1.00"))
    assert caught.value.reason == "refund_required"
    await credit(world, invoice, refund_to_credits=True)  # the 60.00 that credit paid


async def test_several_rates_and_contained_taxes(world: World) -> None:
    invoice = await invoiced(world, "5", "9.975")
    # 50.00 x 5 / 100 and x 9.975 / 100 = 4.9875
    note = await credit(world, invoice, (1, "50.00"))
    assert told(note) == [(1, "50.00"), (3, "2.50"), (4, "4.99")]
    other = new_tenant()
    world.tenant = other
    inside = await invoiced(world, "19", inclusive=True)
    assert told(await credit(world, inside, (1, "50.00"))) == [(1, "50.00")]


async def test_discounts_are_credited_with_all_that_is_left(world: World) -> None:
    invoice = await invoiced(world, discounts=[DiscountInput(amount="30")])
    # 100.00 + 12.50 - 30.00 = 82.50
    with pytest.raises(InvalidArgumentError, match=r"come to 90.00 with .* 82.50 is left"):
        await credit(world, invoice, (1, "90.00"))
    with pytest.raises(InvalidArgumentError, match=r"lines\[0\].amount: must be more than 0 and"):
        await credit(world, invoice, (3, "30.00"))
    note = await credit(world, invoice)
    assert told(note) == [(1, "100.00"), (2, "12.50"), (3, "-30.00")]


async def test_a_refund_is_told_for_paid_invoices_and_only_for_those(world: World) -> None:
    invoice = await invoiced(world)
    with pytest.raises(PreconditionError) as caught:
        await credit(world, invoice, (1, "1.00"), refund_reference="re_1")
    assert caught.value.reason == "invoice_not_paid"
    await world.invoices.pay_invoice(world.tenant, invoice.id)
    with pytest.raises(PreconditionError) as caught:
        await credit(world, invoice, (1, "1.00"))
    assert caught.value.reason == "refund_required"
    note = await credit(world, invoice, (1, "1.00"), refund_reference="re_1")
    assert note.draft.refund_reference == "re_1"


async def test_an_invoice_is_credited_or_void_not_both(world: World) -> None:
    invoice = await invoiced(world)
    await credit(world, invoice, (1, "1.00"))
    with pytest.raises(PreconditionError) as caught:
        await world.invoices.void_invoice(world.tenant, invoice.id)
    assert caught.value.reason == "invoice_credited"
    made, _ = await world.charges.create_charge(
        world.tenant, ChargeInput("user_123", "D", "1", currency="USD", timing="NOW")
    )
    void = await world.invoices.void_invoice(world.tenant, made.invoice_id)
    with pytest.raises(PreconditionError) as caught:
        await credit(world, void)
    assert caught.value.reason == "invoice_void"


async def test_the_webhook_of_a_credit_note_goes_out(world: World) -> None:
    invoice = await invoiced(world)
    note = await credit(world, invoice, (1, "1.00"))
    assert world.wakes[-1] == "relay"
    (data,) = [each.data_json for each in await events(world) if each.type == "credit_note.created"]
    assert data == (
        f'{{"creditNoteId":"{note.id}","number":"CN-000001","invoiceId":"{invoice.id}",'
        '"customerId":"user_123","amount":"1.00","currency":"USD","sequence":1}'
    )


async def test_the_same_key_credits_once(world: World) -> None:
    invoice = await invoiced(world)
    given = CreditNoteInput(invoice.id, "Outage", ((1, "1.00"),), idempotency_key="k")
    made = await asyncio.gather(
        *(world.credit_notes.create_credit_note(world.tenant, given) for _ in range(5))
    )
    assert len({note.id for note, _ in made}) == 1
    assert sorted(replayed for _, replayed in made) == [False, True, True, True, True]
    with pytest.raises(ConflictError):
        await world.credit_notes.create_credit_note(world.tenant, replace(given, reason="Other"))


async def test_many_at_once_credit_no_more_than_there_is_and_leave_no_gap(world: World) -> None:
    invoice = await invoiced(world)
    given = CreditNoteInput(invoice.id, "Outage", ((1, "30.00"),))
    made = await asyncio.gather(
        *(world.credit_notes.create_credit_note(world.tenant, given) for _ in range(10)),
        return_exceptions=True,
    )
    refused = [each for each in made if isinstance(each, InvalidArgumentError)]
    assert len(refused) == 7
    found, _ = await world.credit_notes.list_credit_notes(world.tenant, "", "", Page())
    assert [note.number for note in found] == ["CN-000003", "CN-000002", "CN-000001"]
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    charge = ChargeInput("user_123", "D", "1", currency="USD", timing="NOW")
    made_charge, _ = await world.charges.create_charge(world.tenant, charge)
    next_invoice = await world.invoices.get_invoice(world.tenant, made_charge.invoice_id)
    assert next_invoice.number == "INV-000002"


async def test_what_is_wrong_with_a_credit_note_is_named(world: World) -> None:
    invoice = await invoiced(world, "19")
    with pytest.raises(InvalidArgumentError) as caught:
        await world.credit_notes.create_credit_note(
            world.tenant,
            CreditNoteInput(invoice.id, "", ((1, "x"), (1, "1")), "r" * 201, idempotency_key="ä"),
        )
    fields = [problem.field for problem in caught.value.problems]
    assert fields == [
        "reason",
        "refundReference",
        "Idempotency-Key",
        "lines[0].amount",
        "lines[1].line",
    ]
    with pytest.raises(InvalidArgumentError) as caught:
        await credit(world, invoice, (0, "1"), (3, "1"), (4, "1"), (1, "0.001"), (2, "12.51"))
    fields = [problem.field for problem in caught.value.problems]
    assert fields == [
        "lines[0].line",
        "lines[1].line",
        "lines[2].line",
        "lines[3].amount",
        "lines[4].amount",
    ]


async def test_credit_notes_belong_to_a_tenant(world: World) -> None:
    invoice = await invoiced(world)
    notes = [await credit(world, invoice, (1, "1.00")) for _ in range(2)]
    page, token = await world.credit_notes.list_credit_notes(world.tenant, "", "", Page(1))
    assert page == [notes[1]]
    rest = await world.credit_notes.list_credit_notes(world.tenant, "", "", Page(1, token))
    assert rest == ([notes[0]], "")
    for stranger in (new_tenant(), world.tenant._replace(mode="live")):
        with pytest.raises(NotFoundError):
            await world.credit_notes.get_credit_note(stranger, notes[0].id)
        with pytest.raises(NotFoundError):
            await world.credit_notes.create_credit_note(stranger, CreditNoteInput(invoice.id, "R"))
        found = await world.credit_notes.list_credit_notes(stranger, "", "", Page())
        assert found == ([], "")
    assert await world.credit_notes.list_credit_notes(
        world.tenant, "nobody", invoice.id, Page()
    ) == ([], "")


async def test_a_credit_note_in_a_currency_without_minor_units(world: World) -> None:
    invoice = await invoiced(world, "8", currency="JPY", base_price="999")
    # 999 + 13 (12.5, half up) = 1012; x 8 / 100 = 80.96
    assert invoice.amount == Decimal(1093)
    # 500 x 8 / 100
    assert told(await credit(world, invoice, (1, "500"))) == [(1, "500"), (3, "40")]
    # 512 x 8 / 100 = 40.96 and 40 make 81
    assert told(await credit(world, invoice)) == [(1, "499"), (2, "13"), (3, "41")]


_NOTE = (
    "INSERT INTO credit_notes SELECT (jsonb_populate_record(n, "
    '\'{{"id": "cn_x", "sequence": 2, "number": "CN-000002", {}}}\')).* FROM credit_notes n'
)
_LINE = (
    "INSERT INTO credit_note_lines SELECT organization_id, mode, 'cn_x', invoice_id, {}, '', {} "
    "FROM credit_note_lines LIMIT 1"
)
# All that is left, which leaves the invoice open.
_REST = (
    "INSERT INTO credit_note_lines SELECT organization_id, mode, 'cn_x', invoice_id, position, '', "
    "CASE position WHEN 1 THEN 90 ELSE 12.5 END FROM invoice_lines"
)
_TAKE = "UPDATE invoice_counters SET newest_sequence = 2 WHERE series = 'CN'"


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (["UPDATE credit_notes SET reason = ''"], "UPDATE of credit_notes is refused"),
        (["DELETE FROM credit_note_lines"], "DELETE of credit_note_lines is refused"),
        (["DELETE FROM credit_notes"], "DELETE of credit_notes is refused"),
        (
            [
                "UPDATE invoices SET status = 'PAID', paid_time = now()",
                _TAKE,
                _NOTE.format('"amount": 1'),
            ],
            "of a paid invoice tells no refund",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 102.5, "lines_count": 2'), _REST],
            "does not fit its invoice",
        ),
        (["TRUNCATE credit_note_lines"], "TRUNCATE of credit_note_lines is refused"),
        (
            ["UPDATE invoices SET status = 'VOID', void_time = now()"],
            "an invoice that has credit notes is never void",
        ),
        ([_TAKE], "were taken and not all used"),
        (
            [_NOTE.format('"amount": 1'), _LINE.format(1, 1)],
            "has a number that was not given out",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 2'), _LINE.format(1, 1)],
            "amounts to 2, its lines to 1",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 1.001'), _LINE.format(1, "1.001")],
            "amounts to 1.001, its lines to 1.001",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 95'), _LINE.format(1, 95)],
            "more of invoice .* is credited than there is",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 13'), _LINE.format(2, 13)],
            "more of invoice .* is credited than there is",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 1, "refund_reference": "r"'), _LINE.format(1, 1)],
            "does not fit its invoice",
        ),
        ([_TAKE, _NOTE.format('"amount": 0')], "ck_credit_notes_amount"),
        (
            [_LINE.format(2, 1).replace("'cn_x'", "credit_note_id")],
            "has exactly the lines it was made with",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 1, "number": "CN-2"'), _LINE.format(1, 1)],
            "ck_credit_notes_number",
        ),
    ],
)
async def test_the_database_keeps_credit_notes(
    world: World, statements: list[str], why: str
) -> None:
    invoice = await invoiced(world)
    await credit(world, invoice, (1, "10.00"))
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            for statement in statements:
                await connection.execute(text(statement))
