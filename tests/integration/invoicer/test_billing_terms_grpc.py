"""BillingTermsService over real gRPC: contents, scopes, and what one tenant sees of another."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from usageflow.invoicer.v1 import billing_terms_pb2 as pb
from usageflow.invoicer.v1.invoicer_pb2 import Discount

from services.invoicer.term_servicer import BillingTermsServicer
from services.kit.errors import InvalidArgumentError, NotFoundError
from services.kit.etag import tagged
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import World, pro_plan, utc

JANUARY = utc("2026-01-01")
READS = {"ListDiscounts", "GetCharge", "ListCharges"}
READS |= {"GetTaxRate", "ListTaxRates", "GetAssignedTaxRates"}
READS |= {"GetCreditNote", "ListCreditNotes"}


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    async with serving(
        world, BillingTermsServicer(world.discounts, world.charges, world.taxes, world.credit_notes)
    ) as api:
        yield api


async def examples(world: World, api: Api) -> dict[str, dict[str, Any]]:
    """A request for each method about things of ours."""
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    discount = await api.call(
        "CreateDiscount", subscription_id=subscription.id, discount=Discount(percent="10")
    )
    charge = await api.call("CreateCharge", customer_id="user_123", description="D", unit_price="1")
    by_subscription = {"subscription_id": subscription.id}
    rate = pb.TaxRate(name="VAT", percent="19")
    rate_id = (await api.call("CreateTaxRate", tax_rate=rate)).tax_rate.id
    at_once = await api.call(
        "CreateCharge",
        customer_id="user_123",
        description="D",
        unit_price="5",
        currency="USD",
        timing=pb.CHARGE_TIMING_NOW,
    )
    credit: dict[str, Any] = {
        "invoice_id": at_once.charge.invoice_id,
        "reason": "R",
        "lines": [pb.CreditNoteLineInput(line=1, amount="1")],
    }
    note = (await api.call("CreateCreditNote", **credit)).credit_note
    return {
        "CreateCreditNote": credit,
        "GetCreditNote": {"credit_note_id": note.id},
        "ListCreditNotes": {},
        "CreateTaxRate": {"tax_rate": rate},
        "GetTaxRate": {"tax_rate_id": rate_id},
        "ListTaxRates": {},
        "AssignTaxRates": {"customer_id": "user_123", "tax_rate_ids": [rate_id]},
        "GetAssignedTaxRates": {"customer_id": "user_123"},
        "CreateDiscount": {**by_subscription, "discount": Discount(percent="10")},
        "ListDiscounts": by_subscription,
        "EndDiscount": {"discount_id": discount.discount.id},
        "CreateCharge": {"customer_id": "user_123", "description": "D", "unit_price": "1"},
        "GetCharge": {"charge_id": charge.charge.id},
        "ListCharges": {},
        "DeleteCharge": {"charge_id": charge.charge.id},
    }


async def test_discounts_and_charges_come_back_as_they_were_sent(world: World, api: Api) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    sent = Discount(name="Launch", amount="12.5", periods=3)
    made = (
        await api.call("CreateDiscount", subscription_id=subscription.id, discount=sent)
    ).discount
    assert (made.discount, made.subscription_id) == (sent, subscription.id)
    assert made.start_time.ToDatetime(JANUARY.tzinfo) == JANUARY
    assert made.end_time.ToDatetime(JANUARY.tzinfo) == utc("2026-04-01")
    listed = await api.call("ListDiscounts", "ours-read", subscription_id=subscription.id)
    assert list(listed.discounts) == [made]
    ended = (await api.call("EndDiscount", discount_id=made.id)).discount
    assert ended.end_time.ToDatetime(JANUARY.tzinfo) == JANUARY
    request = {
        "customer_id": "user_123",
        "description": "Training",
        "unit_price": "0.125",
        "quantity": "3",
        "idempotency_key": "k",
    }
    answer = await api.call("CreateCharge", **request)
    charge = answer.charge
    assert (charge.unit_price, charge.quantity, charge.amount) == ("0.125", "3", "0.38")
    assert (charge.currency, charge.timing) == ("USD", pb.CHARGE_TIMING_NEXT_INVOICE)
    assert not answer.replayed
    again = await api.call("CreateCharge", **request)
    assert (again.charge, again.replayed) == (charge, True)
    assert (await api.call("GetCharge", "ours-read", charge_id=charge.id)).charge == charge
    assert list((await api.call("ListCharges", "ours-read")).charges) == [charge]
    await api.call("DeleteCharge", charge_id=charge.id)
    assert not (await api.call("ListCharges", "ours-read")).charges


async def test_tax_rates_come_back_as_they_were_sent(world: World, api: Api) -> None:
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[]))
    sent = pb.TaxRate(name="VAT", percent="7.5", inclusive=True)
    made = (await api.call("CreateTaxRate", tax_rate=sent)).tax_rate
    assert (made.name, made.percent, made.inclusive) == ("VAT", "7.5", True)
    assert (await api.call("GetTaxRate", "ours-read", tax_rate_id=made.id)).tax_rate == made
    assert list((await api.call("ListTaxRates", "ours-read")).tax_rates) == [made]
    assigned = (await api.call("AssignTaxRates", tax_rate_ids=[made.id])).assigned
    assert assigned == tagged(pb.AssignedTaxRates(rates=[made]))
    got = await api.call("GetAssignedTaxRates", "ours-read", customer_id="user_123")
    inherited = tagged(pb.AssignedTaxRates(customer_id="user_123", rates=[made], inherited=True))
    assert got.assigned == inherited
    own = await api.call("AssignTaxRates", customer_id="user_123")
    assert own.assigned == tagged(pb.AssignedTaxRates(customer_id="user_123"))
    back = await api.call("AssignTaxRates", customer_id="user_123", inherit=True)
    assert back.assigned == inherited
    with pytest.raises(InvalidArgumentError, match="taxRateIds: must be empty"):
        await api.call("AssignTaxRates", inherit=True, tax_rate_ids=[made.id])


async def test_an_unknown_timing_is_named(api: Api) -> None:
    with pytest.raises(InvalidArgumentError, match="timing: must be one of NEXT_INVOICE, NOW"):
        await api.call("CreateCharge", customer_id="u", description="D", unit_price="1", timing=9)


async def test_reading_takes_the_scope_read_and_all_else_admin(world: World, api: Api) -> None:
    await api.refuse_who_lacks_scopes(await examples(world, api), READS)


@pytest.mark.parametrize("key", ["theirs-admin", "ours-admin-live"])
async def test_no_method_shows_or_changes_what_is_another_tenants(
    world: World, api: Api, key: str
) -> None:
    requests = await examples(world, api)
    for name, request in requests.items():
        if name in ("ListCharges", "ListTaxRates", "ListCreditNotes"):
            assert await api.call(name, key, **request) == getattr(pb, f"{name}Response")()
        elif name == "CreateTaxRate":
            continue
        elif name == "CreateCharge":
            with pytest.raises(InvalidArgumentError, match="customerId: there is no such customer"):
                await api.call(name, key, **request)
        else:
            with pytest.raises(NotFoundError):
                await api.call(name, key, **request)
    charge = await api.call("GetCharge", "ours-read", **requests["GetCharge"])
    assert not charge.charge.invoice_id
    discounts = await api.call("ListDiscounts", "ours-read", **requests["ListDiscounts"])
    assert len(discounts.discounts) == 1
    assert not discounts.discounts[0].HasField("end_time")
