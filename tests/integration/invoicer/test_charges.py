"""One-off charges: on the next invoice, or at once."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import CustomerInput
from services.invoicer.domain import Invoice, InvoiceStatus
from services.invoicer.service.charges import WAITING_MAX
from services.invoicer.service.paging import Page
from services.invoicer.term_checks import ChargeInput, DiscountInput
from services.kit.errors import (
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
)
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH, APRIL = map(utc, ("2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01"))
TRAINING = ChargeInput("user_123", "Training", "80", quantity="1.5")
NOW = replace(TRAINING, timing="NOW", currency="USD")
PLAN = pro_plan(metrics=[])


def told(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.description, str(line.amount)) for line in invoice.lines]


async def closed_at(world: World, month_end: Any) -> Invoice:
    world.at(month_end + GRACE)
    assert await world.close_all() == 1
    return (await world.all_invoices())[-1]


async def test_a_charge_is_on_the_next_invoice_and_on_no_other(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=PLAN)
    charge, replayed = await world.charges.create_charge(world.tenant, TRAINING)
    assert (charge.subscription_id, charge.invoice_id, replayed) == (subscription.id, "", False)
    invoice = await closed_at(world, FEBRUARY)
    assert told(invoice) == [("Pro: base price", "100.00"), ("Training", "120.00")]
    line = invoice.lines[1]
    assert (str(line.quantity), str(line.unit_price)) == ("1.5", "80")
    assert line.steps == ("1.5 x 80.00 = 120",)
    got = await world.charges.get_charge(world.tenant, charge.id)
    assert got == replace(charge, invoice_id=invoice.id)
    assert told(await closed_at(world, MARCH)) == [("Pro: base price", "100.00")]


async def test_a_charge_is_shown_in_a_preview(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=PLAN)
    await world.charges.create_charge(world.tenant, TRAINING)
    preview = (await world.invoices.preview_invoice(world.tenant, subscription.id)).draft
    assert str(preview.amount) == "220.00"


async def test_a_charge_that_comes_while_an_invoice_is_computed_is_on_it(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    world.aggregator.answering.clear()
    closing = asyncio.create_task(world.closer.close_chunk())
    await asyncio.wait_for(world.aggregator.asked.wait(), 20)
    await world.charges.create_charge(world.tenant, TRAINING)
    world.aggregator.answering.set()
    assert await closing == 0
    assert await world.close_all() == 1
    (invoice,) = await world.all_invoices()
    assert told(invoice)[-1] == ("Training", "120.00")


async def test_discounts_and_limits_of_a_plan_leave_charges_alone(world: World) -> None:
    given = pro_plan(metrics=[], maximum="50", discounts=[DiscountInput(percent="10")])
    await world.subscribe(start=JANUARY, plan=given)
    await world.charges.create_charge(world.tenant, TRAINING)
    invoice = await closed_at(world, FEBRUARY)
    assert [str(line.amount) for line in invoice.lines] == ["90.00", "-40.00", "120.00"]


async def test_credit_that_is_carried_pays_for_a_charge(world: World) -> None:
    await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "45000")
    await closed_at(world, FEBRUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "9000")
    assert (await closed_at(world, MARCH)).amount == 0
    await world.charges.create_charge(world.tenant, TRAINING)
    # 100.00 + 120.00 - 250.00 of credit that is left
    invoice = await closed_at(world, APRIL)
    assert invoice.amount == 0
    assert str(invoice.lines[-1].amount) == "-220.00"


async def test_a_charge_at_once_has_an_invoice_of_its_own(world: World) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    charge, _ = await world.charges.create_charge(world.tenant, NOW)
    (invoice,) = await world.all_invoices()
    assert told(invoice) == [("Training", "120.00")]
    assert (invoice.id, invoice.number) == (charge.invoice_id, "INV-000001")
    assert (invoice.status, invoice.subscription_id) == (InvoiceStatus.PENDING, "")
    assert world.wakes[-1] == "relay"
    async with world.database.transaction() as connection:
        rows = await connection.execute(text("SELECT payload FROM outbox"))
        events = [events_pb2.BillingEvent.FromString(payload) for payload in rows.scalars()]
    assert [event.type for event in events] == ["invoice.created"]
    again, _ = await world.charges.create_charge(world.tenant, NOW)
    assert again.invoice_id != charge.invoice_id


async def test_an_invoice_of_a_charge_is_paid_failed_and_voided_as_others(world: World) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    ids = [(await world.charges.create_charge(world.tenant, NOW))[0].invoice_id for _ in range(2)]
    for _ in range(4):
        failed = await world.invoices.fail_invoice(world.tenant, ids[0])
    assert failed.failed_payments == 4
    assert (await world.invoices.pay_invoice(world.tenant, ids[0])).status is InvoiceStatus.PAID
    assert (await world.invoices.void_invoice(world.tenant, ids[1])).status is InvoiceStatus.VOID


async def test_the_same_key_charges_once(world: World) -> None:
    await world.subscribe(start=JANUARY, plan=PLAN)
    for given in (replace(TRAINING, idempotency_key="a"), replace(NOW, idempotency_key="b")):
        made = await asyncio.gather(
            *(world.charges.create_charge(world.tenant, given) for _ in range(5))
        )
        assert len({charge.id for charge, _ in made}) == 1
        assert sorted(replayed for _, replayed in made) == [False, True, True, True, True]
        assert len({charge.invoice_id for charge, _ in made}) == 1
        other = replace(given, quantity="2")
        with pytest.raises(ConflictError) as caught:
            await world.charges.create_charge(world.tenant, other)
        assert caught.value.reason == "idempotency_conflict"
    assert len(await world.all_invoices()) == 1
    found, _ = await world.charges.list_charges(world.tenant, "user_123", Page())
    assert len(found) == 2


async def test_two_tenants_may_use_the_same_key(world: World) -> None:
    stranger = new_tenant()
    for tenant in (world.tenant, stranger):
        await world.customers.put_customer(tenant, CustomerInput("user_123"))
        given = replace(NOW, idempotency_key="a")
        assert not (await world.charges.create_charge(tenant, given))[1]


async def test_a_charge_that_waits_can_be_taken_back(world: World) -> None:
    await world.subscribe(start=JANUARY, plan=PLAN)
    charge, _ = await world.charges.create_charge(world.tenant, TRAINING)
    kept, _ = await world.charges.create_charge(world.tenant, replace(TRAINING, description="B"))
    await world.charges.delete_charge(world.tenant, charge.id)
    with pytest.raises(NotFoundError):
        await world.charges.delete_charge(world.tenant, charge.id)
    assert told(await closed_at(world, FEBRUARY))[1:] == [("B", "120.00")]
    at_once, _ = await world.charges.create_charge(world.tenant, NOW)
    for each in (kept, at_once):
        with pytest.raises(PreconditionError) as caught:
            await world.charges.delete_charge(world.tenant, each.id)
        assert caught.value.reason == "charge_invoiced"


async def test_where_a_charge_is_to_go_has_to_be_clear(world: World) -> None:
    async def refused(given: ChargeInput, why: str) -> None:
        with pytest.raises(InvalidArgumentError, match=why):
            await world.charges.create_charge(world.tenant, given)

    await refused(TRAINING, "customerId: there is no such customer")
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    await refused(TRAINING, "subscriptionId: the customer has none that has not ended")
    await refused(replace(NOW, currency=""), "currency: is required: the customer has none")
    first = await world.subscribe(start=JANUARY, plan=PLAN)
    await refused(replace(TRAINING, currency="EUR"), "currency: the subscription is in USD")
    second = await world.subscribe(start=JANUARY, plan=PLAN)
    await refused(TRAINING, "subscriptionId: is required: the customer has several")
    other = await world.subscribe("other", start=JANUARY, plan=PLAN)
    for wrong in (other.id, "sub_1"):
        await refused(
            replace(TRAINING, subscription_id=wrong), "the customer has no such subscription"
        )
    charge, _ = await world.charges.create_charge(
        world.tenant, replace(TRAINING, subscription_id=second.id)
    )
    assert charge.subscription_id == second.id
    await world.subscriptions.cancel_subscription(world.tenant, first.id)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 3
    await refused(replace(TRAINING, subscription_id=first.id), "has ended")
    eur = CustomerInput("eur", currency="EUR")
    await world.customers.put_customer(world.tenant, eur)
    await refused(replace(NOW, customer_id="eur"), "currency: the customer pays in EUR")
    made, _ = await world.charges.create_charge(
        world.tenant, replace(NOW, customer_id="eur", currency="")
    )
    assert made.currency == "EUR"


async def test_what_is_wrong_with_a_charge_is_named_all_at_once(world: World) -> None:
    wrong = ChargeInput(
        "", "", "-1", quantity="0", currency="usd", timing="LATER", idempotency_key="ä"
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await world.charges.create_charge(world.tenant, wrong)
    assert [problem.field for problem in caught.value.problems] == [
        "customerId",
        "description",
        "quantity",
        "unitPrice",
        "timing",
        "currency",
        "Idempotency-Key",
    ]
    with pytest.raises(InvalidArgumentError, match="subscriptionId: is for a charge on its next"):
        await world.charges.create_charge(world.tenant, replace(NOW, subscription_id="sub_1"))


async def test_so_many_charges_wait_for_one_invoice(world: World) -> None:
    await world.subscribe(start=JANUARY, plan=PLAN)
    for _ in range(WAITING_MAX):
        await world.charges.create_charge(world.tenant, TRAINING)
    with pytest.raises(PreconditionError, match="charges wait for one invoice"):
        await world.charges.create_charge(world.tenant, TRAINING)
    assert len((await closed_at(world, FEBRUARY)).lines) == 1 + WAITING_MAX
    await world.charges.create_charge(world.tenant, TRAINING)


@pytest.mark.parametrize(
    ("currency", "quantity", "unit_price", "amount"),
    [
        ("JPY", "3", "33.5", "101"),  # 100.5, half up
        ("USD", "3", "0.335", "1.01"),  # 1.005, half up
        ("KWD", "7", "0.0005", "0.004"),  # 0.0035, half up
        ("USD", "0.5", "0.001", "0.00"),  # 0.0005
    ],
)
async def test_a_charge_is_rounded_once(
    world: World, currency: str, quantity: str, unit_price: str, amount: str
) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    given = replace(NOW, currency=currency, quantity=quantity, unit_price=unit_price)
    charge, _ = await world.charges.create_charge(world.tenant, given)
    invoice = await world.invoices.get_invoice(world.tenant, charge.invoice_id)
    assert str(charge.amount) == amount
    assert invoice.amount == charge.amount


async def test_charges_are_listed_newest_first_in_pages_of_one_tenant(world: World) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    made = [(await world.charges.create_charge(world.tenant, NOW))[0] for _ in range(3)]
    page, token = await world.charges.list_charges(world.tenant, "", Page(2))
    assert page == made[:0:-1]
    assert await world.charges.list_charges(world.tenant, "", Page(2, token)) == ([made[0]], "")
    assert await world.charges.list_charges(new_tenant(), "", Page()) == ([], "")
    assert await world.charges.list_charges(world.tenant, "nobody", Page()) == ([], "")
    for tenant in (new_tenant(), world.tenant._replace(mode="live")):
        with pytest.raises(NotFoundError):
            await world.charges.get_charge(tenant, made[0].id)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE charges SET unit_price = 1", "UPDATE of charges is refused"),
        ("DELETE FROM charges", "fk_invoice_lines_charges"),
        ("TRUNCATE charges CASCADE", "TRUNCATE of"),
        ("UPDATE invoices SET subscription_id = 'x'", "nothing in a finalized invoice changes"),
        (
            "INSERT INTO invoices (organization_id, mode, id, customer_id, period_start, "
            "period_end, currency, amount, create_time) SELECT organization_id, mode, 'x', "
            "customer_id, period_start, period_end, currency, 0, now() FROM invoices",
            "ck_invoices_subscription_id",
        ),
        (
            "INSERT INTO invoice_lines SELECT (jsonb_populate_record(l, "
            "'{\"position\": 2}')).* FROM invoice_lines l",
            "uq_invoice_lines_charge_id|finalized",
        ),
        (
            "INSERT INTO invoice_lines SELECT (jsonb_populate_record(l, "
            '\'{"position": 2, "charge_id": null}\')).* FROM invoice_lines l',
            "ck_invoice_lines_charge_id",
        ),
    ],
)
async def test_the_database_keeps_charges_and_their_invoices(
    world: World, statement: str, why: str
) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    await world.charges.create_charge(world.tenant, NOW)
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement))
