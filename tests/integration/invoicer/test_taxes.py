"""Taxes: added to prices or contained in them, several rates, rounded once a rate and invoice."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer.checks import CustomerInput, MetricPriceInput
from services.invoicer.domain import Invoice
from services.invoicer.exact import total
from services.invoicer.service.paging import Page
from services.invoicer.taxes import TaxRate
from services.invoicer.term_checks import ChargeInput, DiscountInput, TaxRateInput
from services.kit.errors import InvalidArgumentError, NotFoundError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH, APRIL, MAY = map(
    utc, ("2026-01-01", "2026-02-01", "2026-03-01", "2026-04-01", "2026-05-01")
)
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})


def told(invoice: Invoice) -> list[tuple[str, str]]:
    return [(line.kind.value, str(line.amount)) for line in invoice.lines if line.amount]


def taxes(invoice: Invoice) -> list[tuple[str, str, str]]:
    return [(tax.name, str(tax.taxable), str(tax.amount)) for tax in invoice.taxes]


async def rate(world: World, name: str, percent: str, *, inclusive: bool = False) -> TaxRate:
    given = TaxRateInput(name, percent, inclusive)
    return await world.taxes.create_tax_rate(world.tenant, given)


async def closed_at(world: World, month_end: Any) -> Invoice:
    world.at(month_end + GRACE)
    assert await world.close_all() == 1
    return (await world.all_invoices())[-1]


async def test_a_tax_is_added_in_a_line_of_its_own(world: World) -> None:
    vat = await rate(world, "VAT", "19")
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[CALLS]))
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "1250")
    preview = (await world.invoices.preview_invoice(world.tenant, subscription.id)).draft
    invoice = await closed_at(world, FEBRUARY)
    # 112.50 x 19 / 100 = 21.375
    assert told(invoice) == [("BASE", "100.00"), ("USAGE", "12.50"), ("TAX", "21.38")]
    assert invoice.lines[-1].description == "VAT 19 %"
    assert invoice.lines[-1].steps == (
        "112.50 x 19 / 100 = 21.375",
        "rounded half up: 21.38 USD",
    )
    assert taxes(invoice) == [("VAT", "112.50", "21.38")]
    assert str(invoice.amount) == "133.88"
    assert (preview.lines, preview.taxes) == (invoice.lines, invoice.taxes)


async def test_a_tax_that_prices_contain_is_told_and_not_added(world: World) -> None:
    vat = await rate(world, "VAT", "19", inclusive=True)
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    invoice = await closed_at(world, FEBRUARY)
    # 100.00 x 19 / 119 = 15.966...
    assert told(invoice) == [("BASE", "100.00")]
    assert taxes(invoice) == [("VAT", "84.03", "15.97")]
    assert str(invoice.amount) == "100.00"


@pytest.mark.parametrize(
    ("currency", "base", "rates", "inclusive", "expected", "amount"),
    [
        # 100.00 x 5 / 100; 100.00 x 9.975 / 100 = 9.975
        ("CAD", "100", ["5", "9.975"], False, [("100.00", "5.00"), ("100.00", "9.98")], "114.98"),
        # 10.05 x 10 / 100 = 1.005, half up
        ("USD", "10.05", ["10"], False, [("10.05", "1.01")], "11.06"),
        # 999 x 8 / 100 = 79.92
        ("JPY", "999", ["8"], False, [("999", "80")], "1079"),
        # 999 x 8 / 108 = 74
        ("JPY", "999", ["8"], True, [("925", "74")], "999"),
        # 1.234 x 5 / 100 = 0.0617
        ("KWD", "1.234", ["5"], False, [("1.234", "0.062")], "1.296"),
        # 1.234 x 5 / 110 = 0.05609..., 1.234 x 5 / 110 the same; 1.234 - 0.056 - 0.056
        ("KWD", "1.234", ["5", "5.0"], True, [("1.122", "0.056"), ("1.122", "0.056")], "1.234"),
        # 114.975 is 100 with 5 and 9.975: 114.98 x 5 / 114.975 = 5.0002..., x 9.975 = 9.9754...
        ("CAD", "114.98", ["5", "9.975"], True, [("100.00", "5.00"), ("100.00", "9.98")], "114.98"),
        ("USD", "100", ["0"], False, [("100.00", "0.00")], "100.00"),
        ("USD", "0", ["19"], False, [("0.00", "0.00")], "0.00"),
        # 0.05 x 10 / 100 = 0.005, half up
        ("USD", "0.05", ["10"], False, [("0.05", "0.01")], "0.06"),
        ("USD", "100", ["100"], True, [("50.00", "50.00")], "100.00"),
        # The customer pays no tax.
        ("USD", "100", [], False, [], "100.00"),
    ],
)
async def test_each_rate_is_rounded_once(
    world: World,
    currency: str,
    base: str,
    rates: list[str],
    inclusive: bool,
    expected: list[tuple[str, str]],
    amount: str,
) -> None:
    made = [await rate(world, "T", each, inclusive=inclusive) for each in rates]
    await world.taxes.assign_tax_rates(world.tenant, "", [each.id for each in made])
    plan = pro_plan(metrics=[], currency=currency, base_price=base)
    await world.subscribe(start=JANUARY, plan=plan)
    invoice = await closed_at(world, FEBRUARY)
    assert [(taxable, tax) for _, taxable, tax in taxes(invoice)] == expected
    assert str(invoice.amount) == amount
    assert total(line.amount for line in invoice.lines) == invoice.amount


async def test_tax_comes_after_discounts_limits_and_charges(world: World) -> None:
    vat = await rate(world, "VAT", "20")
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    plan = pro_plan(metrics=[], discounts=[DiscountInput(percent="10")], maximum="80")
    await world.subscribe(start=JANUARY, plan=plan)
    charge = ChargeInput("user_123", "Training", "120")
    await world.charges.create_charge(world.tenant, charge)
    invoice = await closed_at(world, FEBRUARY)
    # (90.00 - 10.00 + 120.00) x 20 / 100
    assert told(invoice) == [
        ("BASE", "90.00"),
        ("MAXIMUM", "-10.00"),
        ("CHARGE", "120.00"),
        ("TAX", "40.00"),
    ]
    at_once = replace(charge, timing="NOW", currency="USD")
    made, _ = await world.charges.create_charge(world.tenant, at_once)
    alone = await world.invoices.get_invoice(world.tenant, made.invoice_id)
    assert told(alone) == [("CHARGE", "120.00"), ("TAX", "24.00")]
    assert taxes(alone) == [("VAT", "120.00", "24.00")]


async def test_credit_for_usage_gives_its_tax_back_once(world: World) -> None:
    vat = await rate(world, "VAT", "10")
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[CALLS]))
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "30000")
    first = await closed_at(world, FEBRUARY)
    assert told(first) == [("BASE", "100.00"), ("USAGE", "300.00"), ("TAX", "40.00")]
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "0")
    second = await closed_at(world, MARCH)
    # 100.00 - 300.00 and its tax, -20.00, leave 220.00 of credit.
    assert told(second) == [
        ("BASE", "100.00"),
        ("LATE_USAGE", "-300.00"),
        ("TAX", "-20.00"),
        ("CREDIT_CARRIED", "220.00"),
    ]
    third = await closed_at(world, APRIL)
    assert told(third) == [("BASE", "100.00"), ("TAX", "10.00"), ("CREDIT_CARRIED", "-110.00")]
    await closed_at(world, MAY)
    amounts = [invoice.amount for invoice in await world.all_invoices()]
    # Four base prices with tax.
    assert total(amounts) == Decimal("440.00")


async def test_a_customers_own_rates_come_before_those_of_all(world: World) -> None:
    vat, reduced = await rate(world, "VAT", "19"), await rate(world, "VAT", "7")
    for customer in ("general", "reduced", "exempt", "back"):
        await world.subscribe(customer, start=JANUARY, plan=pro_plan(metrics=[]))
    assign = world.taxes.assign_tax_rates
    assert (await assign(world.tenant, "", [vat.id])).rates == (vat,)
    await assign(world.tenant, "reduced", [reduced.id])
    exempt = await assign(world.tenant, "exempt", [])
    assert (exempt.rates, exempt.inherited) == ((), False)
    await assign(world.tenant, "back", [])
    back = await assign(world.tenant, "back", None)
    assert (back.rates, back.inherited) == ((vat,), True)
    assert await world.taxes.get_assigned_tax_rates(world.tenant, "back") == back
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 4
    amounts = {each.customer_id: str(each.amount) for each in await world.all_invoices()}
    assert amounts == {
        "general": "119.00",
        "reduced": "107.00",
        "exempt": "100.00",
        "back": "119.00",
    }


async def test_an_invoice_keeps_the_rates_that_it_had(world: World) -> None:
    vat, other = await rate(world, "VAT", "19"), await rate(world, "VAT", "20")
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    first = await closed_at(world, FEBRUARY)
    await world.taxes.assign_tax_rates(world.tenant, "", [other.id])
    assert str((await closed_at(world, MARCH)).amount) == "120.00"
    assert await world.invoices.get_invoice(world.tenant, first.id) == first


async def test_what_is_wrong_with_rates_is_named(world: World) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await world.taxes.create_tax_rate(world.tenant, TaxRateInput("", "100.0000001"))
    assert [problem.field for problem in caught.value.problems] == ["name", "percent"]
    with pytest.raises(InvalidArgumentError, match="percent: must be at most 100"):
        await world.taxes.create_tax_rate(world.tenant, TaxRateInput("T", "101"))
    added, inside = await rate(world, "A", "1"), await rate(world, "B", "1", inclusive=True)
    await world.customers.put_customer(world.tenant, CustomerInput("user_123"))
    for ids, why in (
        ([added.id, "tax_1"], r"taxRateIds\[1\]: there is no such tax rate"),
        ([added.id, added.id], "must not contain one twice"),
        ([added.id, inside.id], "must be all inclusive or all not"),
        ([added.id] * 6, "must be at most 5"),
    ):
        for customer in ("", "user_123"):
            with pytest.raises(InvalidArgumentError, match=why):
                await world.taxes.assign_tax_rates(world.tenant, customer, ids)
    with pytest.raises(NotFoundError, match="No such customer"):
        await world.taxes.assign_tax_rates(world.tenant, "nobody", [added.id])


async def test_rates_belong_to_a_tenant(world: World) -> None:
    vat = await rate(world, "VAT", "19")
    older = await rate(world, "VAT", "7")
    page, token = await world.taxes.list_tax_rates(world.tenant, Page(1))
    assert page == [older]
    assert await world.taxes.list_tax_rates(world.tenant, Page(1, token)) == ([vat], "")
    assert await world.taxes.get_tax_rate(world.tenant, vat.id) == vat
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    for stranger in (new_tenant(), world.tenant._replace(mode="live")):
        with pytest.raises(NotFoundError):
            await world.taxes.get_tax_rate(stranger, vat.id)
        with pytest.raises(InvalidArgumentError, match="there is no such tax rate"):
            await world.taxes.assign_tax_rates(stranger, "", [vat.id])
        assert await world.taxes.list_tax_rates(stranger, Page()) == ([], "")
        assert (await world.taxes.get_assigned_tax_rates(stranger, "")).rates == ()


_TAX = (
    "INSERT INTO invoice_taxes SELECT organization_id, mode, 'inv_x', position, tax_rate_id, name, "
    "percent, inclusive, {taxable}, {amount} FROM invoice_taxes"
)
_LINES = (
    "INSERT INTO invoice_lines SELECT (jsonb_populate_record(l, "
    "jsonb_build_object('invoice_id', 'inv_x', 'amount', "
    "CASE kind WHEN 'TAX' THEN {tax} ELSE amount END))).* "
    "FROM invoice_lines l WHERE invoice_id <> 'inv_x'"
)


@pytest.mark.parametrize(
    ("line", "taxable", "amount", "why"),
    [
        ("19", "100", "19", None),
        ("20", "100", "20", "not its rate of the lines"),
        ("19", "99", "19", "not its rate of the lines"),
        ("20", "100", "19", "adds taxes of 19"),
        ("19", None, None, "adds taxes of 0"),
    ],
)
async def test_the_database_recomputes_taxes(
    world: World, line: str, taxable: str | None, amount: str | None, why: str | None
) -> None:
    vat = await rate(world, "VAT", "19")
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    await closed_at(world, FEBRUARY)
    statements = [
        "INSERT INTO invoices (organization_id, mode, id, customer_id, subscription_id, plan_id, "
        "plan_version, period_start, period_end, currency, amount, create_time) SELECT "
        "organization_id, mode, 'inv_x', customer_id, subscription_id, plan_id, plan_version, "
        f"period_end, period_end + interval '1 month', currency, 100 + {line}, now() FROM invoices",
        _LINES.format(tax=line),
    ]
    if taxable is not None:
        statements.append(_TAX.format(taxable=taxable, amount=amount))
    statements += [
        "UPDATE invoice_counters SET newest_sequence = 2",
        "UPDATE invoices SET status = 'PENDING', sequence = 2, number = 'INV-000002', "
        "finalize_time = now() WHERE status = 'DRAFT'",
        "INSERT INTO document_hashes (organization_id, mode, series, sequence) "
        "SELECT organization_id, mode, 'INV', 2 FROM invoices WHERE id = 'inv_x'",
    ]

    async def run() -> None:
        async with world.database.transaction() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    if why is None:
        await run()
        return
    with pytest.raises(DBAPIError, match=why):
        await run()


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE tax_rates SET percent = 1", "UPDATE of tax_rates is refused"),
        ("DELETE FROM tax_rates", "DELETE of tax_rates is refused"),
        ("UPDATE invoice_taxes SET amount = 1", "UPDATE of invoice_taxes is refused"),
        ("DELETE FROM invoice_taxes", "DELETE of a line of a finalized invoice is refused"),
        ("TRUNCATE invoice_taxes", "TRUNCATE of invoice_taxes is refused"),
        (
            "INSERT INTO invoice_taxes SELECT (jsonb_populate_record(t, "
            "jsonb_build_object('position', 2, 'tax_rate_id', (SELECT id FROM tax_rates "
            "WHERE name = 'OTHER')))).* FROM invoice_taxes t",
            "INSERT of a line of a finalized invoice is refused",
        ),
        (
            "UPDATE tax_assignments SET tax_rate_ids = tax_rate_ids || tax_rate_ids",
            "tax rates of a customer are the tenant's",
        ),
        (
            "UPDATE tax_assignments SET tax_rate_ids = ARRAY['tax_1']",
            "tax rates of a customer are the tenant's",
        ),
        ("UPDATE tax_assignments SET mode = 'live'", "tax rates of a customer are the tenant's"),
    ],
)
async def test_the_database_keeps_rates_and_taxes(world: World, statement: str, why: str) -> None:
    vat, _ = await rate(world, "VAT", "19"), await rate(world, "OTHER", "5")
    await world.taxes.assign_tax_rates(world.tenant, "", [vat.id])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    await closed_at(world, FEBRUARY)
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement))
