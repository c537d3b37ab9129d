"""Usage that was taken back after it was invoiced: a credit on the next invoice, never below 0."""

from datetime import datetime
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.domain import Invoice, LineKind
from services.invoicer.exact import total
from services.kit.errors import PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, pro_plan, utc

MONTHS = [utc(f"2026-{month:02}-01") for month in range(1, 7)]
JANUARY, FEBRUARY, MARCH, APRIL, MAY, JUNE = MONTHS


async def closed_at(world: World, month_end: datetime) -> Invoice:
    """The newest invoice after closing the period that ended then."""
    world.at(month_end + GRACE)
    assert await world.close_all() == 1
    return (await world.all_invoices())[-1]


def amounts(invoice: Invoice) -> list[tuple[str, str]]:
    """Kind and amount of the lines that are not 0."""
    return [(line.kind.value, str(line.amount)) for line in invoice.lines if line.amount]


def put(world: World, month: datetime, quantity: str) -> None:
    """How many calls were made in a month."""
    world.aggregator.put(world.tenant, "user_123", "API_CALL", month, quantity)


async def test_voided_usage_becomes_a_credit_that_names_its_period(world: World) -> None:
    await world.subscribe(start=JANUARY)
    put(world, JANUARY, "12000")
    assert str((await closed_at(world, FEBRUARY)).amount) == "120.00"
    put(world, JANUARY, "11500")
    second = await closed_at(world, MARCH)
    (credit,) = [line for line in second.lines if line.kind is LineKind.LATE_USAGE]
    assert (str(credit.quantity), str(credit.amount)) == ("-500", "-5.00")
    assert "2026-01-01 to 2026-02-01" in credit.description
    assert str(second.amount) == "95.00"
    # It is given once.
    assert amounts(await closed_at(world, APRIL)) == [("BASE", "100.00")]


async def test_credit_that_does_not_fit_goes_to_the_following_invoices(world: World) -> None:
    await world.subscribe(start=JANUARY)
    put(world, JANUARY, "45000")
    assert str((await closed_at(world, FEBRUARY)).amount) == "450.00"
    put(world, JANUARY, "9000")
    second = await closed_at(world, MARCH)
    # The bill of January becomes 100.00: 350.00 less, of which 100.00 fit.
    assert amounts(second) == [
        ("BASE", "100.00"),
        ("LATE_USAGE", "-350.00"),
        ("CREDIT_CARRIED", "250.00"),
    ]
    assert second.amount == 0
    third = await closed_at(world, APRIL)
    assert amounts(third) == [("BASE", "100.00"), ("CREDIT_CARRIED", "-100.00")]
    put(world, APRIL, "11000")
    fourth = await closed_at(world, MAY)
    assert amounts(fourth) == [
        ("BASE", "100.00"),
        ("USAGE", "10.00"),
        ("CREDIT_CARRIED", "-110.00"),
    ]
    fifth = await closed_at(world, JUNE)
    assert amounts(fifth) == [("BASE", "100.00"), ("CREDIT_CARRIED", "-40.00")]
    invoices = await world.all_invoices()
    # Five base prices and 10.00: the 350.00 were given back in full.
    assert total(invoice.amount for invoice in invoices) == Decimal("510.00")


async def test_a_preview_shows_the_credit(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    put(world, JANUARY, "45000")
    await closed_at(world, FEBRUARY)
    put(world, JANUARY, "9000")
    await closed_at(world, MARCH)
    preview = (await world.invoices.preview_invoice(world.tenant, subscription.id)).draft
    assert str(preview.amount) == "0.00"
    assert preview.lines[-1].amount == Decimal("-100.00")


async def test_a_void_invoice_carries_nothing(world: World) -> None:
    """What it brought is brought by the next. One that came to nothing is paid, and final."""
    await world.subscribe(start=JANUARY)
    put(world, JANUARY, "25000")
    await closed_at(world, FEBRUARY)
    put(world, JANUARY, "9000")
    second = await closed_at(world, MARCH)
    assert amounts(second)[-1] == ("CREDIT_CARRIED", "50.00")
    with pytest.raises(PreconditionError, match="is paid"):
        await world.invoices.void_invoice(world.tenant, second.id)
    third = await closed_at(world, APRIL)
    assert amounts(third) == [("BASE", "100.00"), ("CREDIT_CARRIED", "-50.00")]
    await world.invoices.void_invoice(world.tenant, third.id)
    fourth = await closed_at(world, MAY)
    assert amounts(fourth) == [("BASE", "100.00"), ("CREDIT_CARRIED", "-50.00")]
    assert amounts(await closed_at(world, JUNE)) == [("BASE", "100.00")]
    live = [each for each in await world.all_invoices() if each.id != third.id]
    lines = [line for invoice in live for line in invoice.lines]
    carried = total(line.amount for line in lines if line.kind is LineKind.CREDIT_CARRIED)
    assert carried == 0
    # January's 250.00 less the 150.00 that it was too much, April and May; March's is void.
    assert total(invoice.amount for invoice in live) == Decimal("400.00")


async def test_subscriptions_carry_apart(world: World) -> None:
    await world.subscribe("user_123", start=JANUARY)
    await world.subscribe("other", start=JANUARY)
    put(world, JANUARY, "45000")
    for month in (FEBRUARY, MARCH, APRIL):
        world.at(month + GRACE)
        assert await world.close_all() == 2
        put(world, JANUARY, "9000")
    newest = {each.customer_id: each for each in await world.all_invoices()}
    assert str(newest["other"].amount) == "100.00"
    assert newest["user_123"].amount == 0


LINE = """
INSERT INTO invoice_lines SELECT organization_id, mode, id, 9, '{kind}', {metric}, 'x', 1, 0, NULL,
    {amount}, period_start, period_end, '[]' FROM invoices WHERE status = 'DRAFT'
"""
DRAFT = """
INSERT INTO invoices (organization_id, mode, id, customer_id, subscription_id, plan_id,
    plan_version, period_start, period_end, currency, amount, create_time)
SELECT organization_id, mode, 'inv_x', customer_id, subscription_id, plan_id, plan_version,
    period_end, period_end + interval '1 month', currency, {amount}, now() FROM invoices
"""
NUMBER = "UPDATE invoice_counters SET newest_sequence = newest_sequence + 1"
FINALIZE = """
UPDATE invoices SET status = 'PENDING', sequence = 2, number = 'INV-000002', finalize_time = now()
WHERE status = 'DRAFT'
"""


@pytest.mark.parametrize(
    ("amount", "lines", "why"),
    [
        ("-1", [("USAGE", "'M'", "-1")], "is below 0"),
        ("4", [("USAGE", "'M'", "9"), ("CREDIT_CARRIED", "NULL", "-5")], "more credit than"),
        (
            "10",
            [("CREDIT_CARRIED", "NULL", "5"), ("CREDIT_CARRIED", "NULL", "5")],
            "uq_invoice_lines_credit_carried",
        ),
        ("5", [("CREDIT_CARRIED", "'M'", "5")], "ck_invoice_lines_metric"),
        ("5", [("CREDIT", "NULL", "5")], "ck_invoice_lines_kind"),
        ("5", [("USAGE", "NULL", "5")], "ck_invoice_lines_metric"),
    ],
)
async def test_the_database_refuses_wrong_credit(
    world: World, amount: str, lines: list[tuple[str, str, str]], why: str
) -> None:
    await world.subscribe(start=JANUARY)
    await closed_at(world, FEBRUARY)
    statements = [DRAFT.format(amount=amount)]
    for position, (kind, metric, of_line) in enumerate(lines):
        line = LINE.format(kind=kind, metric=metric, amount=of_line)
        statements.append(line.replace(" 9, ", f" {position + 1}, "))
    statements += [NUMBER, FINALIZE]
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            for statement in statements:
                await connection.execute(text(statement))
    assert len(await world.all_invoices()) == 1


async def test_a_plan_without_a_base_price_carries_until_there_is_something_to_pay(
    world: World,
) -> None:
    free = pro_plan(base_price="0")
    await world.subscribe(start=JANUARY, plan=free)
    put(world, JANUARY, "12000")
    await closed_at(world, FEBRUARY)
    put(world, JANUARY, "0")
    assert amounts(await closed_at(world, MARCH)) == [
        ("LATE_USAGE", "-20.00"),
        ("CREDIT_CARRIED", "20.00"),
    ]
    assert amounts(await closed_at(world, APRIL)) == []
    put(world, APRIL, "13000")
    fourth = await closed_at(world, MAY)
    assert amounts(fourth) == [("USAGE", "30.00"), ("CREDIT_CARRIED", "-20.00")]
    assert str(fourth.amount) == "10.00"
