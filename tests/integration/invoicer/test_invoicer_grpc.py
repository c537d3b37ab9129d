"""InvoicerService over real gRPC: contents, scopes, and what one tenant sees of another."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from usageflow.invoicer.v1 import invoicer_pb2 as pb

from services.invoicer.service.simulations import Simulations
from services.invoicer.servicer import InvoicerServicer
from services.invoicer.simulation_servicer import SimulationServicer
from services.kit.errors import InvalidArgumentError, NotFoundError, UnavailableError
from tests.integration.invoicer.serving import Api, serving
from tests.integration.invoicer.stand_ins import GRACE, World, utc

JANUARY, FEBRUARY = utc("2026-01-01"), utc("2026-02-01")
READS = {
    "GetCustomer",
    "ListCustomers",
    "GetPlan",
    "ListPlans",
    "QuotePlan",
    "GetSubscription",
    "ListSubscriptions",
    "GetInvoice",
    "ListInvoices",
    "PreviewInvoice",
    "GetRevenue",
}


@pytest.fixture
async def api(world: World) -> AsyncIterator[Api]:
    """The service of `world` on a port of its own."""
    async with serving(world, servicer_of(world)) as api:
        yield api


def servicer_of(world: World) -> InvoicerServicer:
    return InvoicerServicer(
        world.customers,
        world.plans,
        world.subscriptions,
        world.invoices,
        world.revenues,
        world.clock,
    )


def pro(**changes: object) -> pb.Plan:
    plan = pb.Plan(
        name="Pro",
        currency="USD",
        base_price="100.00",
        metrics=[
            pb.MetricPrice(
                metric="API_CALL",
                model=pb.PRICING_MODEL_PER_UNIT,
                included_units="10000",
                unit_price="0.01",
            ),
            pb.MetricPrice(
                metric="AI_TOKEN", model=pb.PRICING_MODEL_PER_UNIT, unit_price="0.00002"
            ),
        ],
    )
    plan.MergeFrom(pb.Plan(**changes))  # type: ignore[arg-type]
    return plan


async def invoiced(world: World, api: Api) -> tuple[pb.Subscription, pb.Invoice]:
    """user_123 on Pro since January, and January's invoice of 120.03."""
    world.aggregator.units = {"API_CALL": "calls", "AI_TOKEN": "tokens"}
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "12000")
    world.aggregator.put(world.tenant, "user_123", "AI_TOKEN", JANUARY, "1500")
    plan = (await api.call("CreatePlan", plan=pro())).plan
    made = await api.call(
        "CreateSubscription", customer_id="user_123", plan_id=plan.id, start_time=JANUARY
    )
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    (invoice,) = (await api.call("ListInvoices", "ours-read")).invoices
    return made.subscription, invoice


async def test_the_flow_of_the_example(world: World, api: Api) -> None:
    subscription, invoice = await invoiced(world, api)
    assert subscription.status == pb.SUBSCRIPTION_STATUS_ACTIVE
    assert subscription.billing_anchor == pb.BILLING_ANCHOR_CALENDAR
    assert subscription.current_period_end_time.ToDatetime(FEBRUARY.tzinfo) == FEBRUARY
    assert (invoice.number, invoice.currency, invoice.amount) == ("INV-000001", "USD", "120.03")
    assert invoice.status == pb.INVOICE_STATUS_PENDING
    lines = [
        (each.metric, each.quantity, each.included_units, each.unit_price, each.amount)
        for each in invoice.lines
    ]
    assert lines == [
        ("", "1", "0", "100.00", "100.00"),
        ("API_CALL", "12000", "10000", "0.01", "20.00"),
        ("AI_TOKEN", "1500", "0", "0.00002", "0.03"),
    ]
    assert invoice.create_time.ToDatetime(FEBRUARY.tzinfo) == FEBRUARY + GRACE
    paid = await api.call("PayInvoice", invoice_id=invoice.id)
    assert paid.invoice.status == pb.INVOICE_STATUS_PAID
    got = await api.call("GetInvoice", "ours-read", invoice_id=invoice.id)
    assert got.invoice == paid.invoice
    preview = await api.call("PreviewInvoice", "ours-read", subscription_id=subscription.id)
    assert preview.invoice.status == pb.INVOICE_STATUS_DRAFT
    assert (preview.invoice.id, preview.invoice.number) == ("", "")
    assert preview.invoice.amount == "100.00"


async def test_a_quote_is_worked_out_step_by_step(api: Api) -> None:
    quantities = {"API_CALL": "12000", "AI_TOKEN": "1501"}
    quote = await api.call("QuotePlan", "ours-read", plan=pro(), quantities=quantities)
    assert (quote.currency, quote.amount) == ("USD", "120.03")
    assert [(each.metric, each.quantity, each.amount) for each in quote.lines] == [
        ("", "1", "100.00"),
        ("API_CALL", "12000", "20.00"),
        ("AI_TOKEN", "1501", "0.03"),
    ]
    assert list(quote.lines[1].steps) == ["12,000 - 10,000 included = 2,000", "2,000 x 0.01 = 20"]
    assert list(quote.lines[2].steps) == ["1,501 x 0.00002 = 0.03002", "rounded half up: 0.03 USD"]


async def test_a_plan_comes_back_as_it_was_sent(api: Api) -> None:
    made = (await api.call("CreatePlan", plan=pro())).plan
    assert (made.version, made.billing_period) == (1, pb.BILLING_PERIOD_MONTHLY)
    assert (made.name, made.currency, made.base_price) == ("Pro", "USD", "100.00")
    assert [(m.metric, m.included_units, m.unit_price) for m in made.metrics] == [
        ("API_CALL", "10000", "0.01"),
        ("AI_TOKEN", "0", "0.00002"),
    ]
    assert (await api.call("GetPlan", "ours-read", plan_id=made.id)).plan == made
    changed = pro(id=made.id, base_price="99.995")
    newer = (await api.call("CreatePlanVersion", plan=changed)).plan
    assert (newer.id, newer.version, newer.base_price) == (made.id, 2, "99.995")
    (listed,) = (await api.call("ListPlans", "ours-read")).plans
    assert listed == newer


async def test_a_customer_comes_back_as_it_was_sent(api: Api) -> None:
    customer = pb.Customer(
        id="user_123",
        name="Ada",
        email="ada@example.com",
        time_zone="Asia/Kathmandu",
        currency="EUR",
        metadata_json='{"tier": 1.10}',
    )
    put = await api.call("PutCustomer", customer=customer)
    assert put.created
    assert put.customer.HasField("create_time")
    stored = (await api.call("GetCustomer", "ours-read", customer_id="user_123")).customer
    assert stored == put.customer
    assert stored.etag
    for made_here in ("create_time", "etag"):
        stored.ClearField(made_here)
    assert stored == customer
    (listed,) = (await api.call("ListCustomers", "ours-read")).customers
    assert listed == put.customer


async def test_with_strict_metrics_a_plan_prices_only_what_somebody_has_defined(
    world: World,
) -> None:
    world.aggregator.defined_metrics = {"API_CALL"}
    async with serving(world, servicer_of(world), strict_metrics=True) as api:
        with pytest.raises(InvalidArgumentError) as caught:
            await api.call("CreatePlan", plan=pro())
        [problem] = caught.value.problems
        assert problem.field == "metrics[1].metric"
        assert "a metric that is defined" in problem.message
        # What has defined itself is not enough here, but of an organization that is not strict.
        world.aggregator.self_defined_metrics = {"AI_TOKEN"}
        with pytest.raises(InvalidArgumentError, match=r"metrics\[1\].metric"):
            await api.call("CreatePlan", plan=pro())
        await api.call("CreatePlan", "theirs-admin", plan=pro())
        world.aggregator.away = True
        with pytest.raises(UnavailableError):
            await api.call("CreatePlan", plan=pro())
        world.aggregator.away = False
        world.aggregator.defined_metrics.add("AI_TOKEN")
        made = (await api.call("CreatePlan", plan=pro())).plan
        world.aggregator.defined_metrics.clear()
        with pytest.raises(InvalidArgumentError) as caught:
            await api.call("CreatePlanVersion", plan=pro(id=made.id))
        named = [problem.field for problem in caught.value.problems]
        assert named == ["metrics[0].metric", "metrics[1].metric"]


async def test_a_plan_that_prices_an_unknown_or_archived_metric_is_refused_by_name(
    world: World,
) -> None:
    """Of a typo nothing would ever be billed; in every organization."""
    world.aggregator.defined_metrics = {"API_CALL"}
    simulations = Simulations(world.database, world.usage, world.clock, world.metrics)
    async with serving(world, servicer_of(world), SimulationServicer(simulations)) as api:
        asked: list[tuple[str, dict[str, Any]]] = [
            ("CreatePlan", {}),
            ("SimulatePlan", {"from_month": "2026-01", "to_month": "2026-01"}),
        ]
        made = (await api.call("CreatePlan", plan=pb.Plan(name="Free", currency="USD"))).plan
        for name, more in [*asked, ("CreatePlanVersion", {})]:
            with pytest.raises(InvalidArgumentError) as caught:
                await api.call(name, plan=pro(id=made.id, base_price="x"), **more)
            # With all else that is wrong with it.
            assert [each.field for each in caught.value.problems] == [
                "metrics[1].metric",
                "basePrice",
            ]
            assert caught.value.problems[0].message == (
                "is unknown: define it with POST /api/metrics, or send its first event"
            )
        world.aggregator.away = True
        for name, more in asked:
            with pytest.raises(UnavailableError):
                await api.call(name, plan=pro(), **more)
        world.aggregator.away = False
        # A calculator's plan is never billed.
        await api.call("QuotePlan", plan=pro())
        world.aggregator.archived_metrics = {"API_CALL"}
        world.aggregator.self_defined_metrics = {"AI_TOKEN"}
        with pytest.raises(InvalidArgumentError, match="unarchive it first") as caught:
            await api.call("CreatePlan", plan=pro())
        assert [each.field for each in caught.value.problems] == ["metrics[0].metric"]
        world.aggregator.archived_metrics.clear()
        # Its first event has come.
        await api.call("CreatePlan", plan=pro())
        assert len((await api.call("ListPlans", "ours-read")).plans) == 2


async def test_what_is_wrong_is_named_as_in_the_http_contract(api: Api) -> None:
    bad = pb.Plan(
        currency="usd",
        base_price="x",
        billing_period=7,  # type: ignore[arg-type]
        metrics=[pb.MetricPrice(metric="A", model=9, unit_price="-1")],  # type: ignore[arg-type]
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await api.call("CreatePlan", plan=bad)
    assert [problem.field for problem in caught.value.problems] == [
        "name",
        "currency",
        "basePrice",
        "billingPeriod",
        "metrics[0].model",
    ]
    plan = (await api.call("CreatePlan", plan=pro())).plan
    for nanos in (1, 1_000_000):
        start = {"seconds": int(JANUARY.timestamp()), "nanos": nanos}
        with pytest.raises(InvalidArgumentError) as caught:
            await api.call("CreateSubscription", customer_id="u", plan_id=plan.id, start_time=start)
        assert [problem.field for problem in caught.value.problems] == ["startsAt"]
    with pytest.raises(InvalidArgumentError, match="startsAt"):
        await api.call("CreateSubscription", start_time={"seconds": 10**15})
    with pytest.raises(InvalidArgumentError, match="status: must be one of"):
        await api.call("ListInvoices", "ours-read", status=9)
    with pytest.raises(InvalidArgumentError, match="limit"):
        await api.call("ListInvoices", "ours-read", page_size=101)


def example_requests(subscription: pb.Subscription, invoice: pb.Invoice) -> dict[str, Any]:
    """A request for each method about things of ours."""
    by_subscription = {"subscription_id": subscription.id}
    by_invoice = {"invoice_id": invoice.id}
    return {
        "PutCustomer": {"customer": pb.Customer(id="user_123")},
        "GetCustomer": {"customer_id": "user_123"},
        "ListCustomers": {},
        "CreatePlan": {"plan": pro()},
        "CreatePlanVersion": {"plan": pro(id=subscription.plan_id)},
        "GetPlan": {"plan_id": subscription.plan_id},
        "ListPlans": {},
        "QuotePlan": {"plan": pro()},
        "CreateSubscription": {"customer_id": "user_123", "plan_id": subscription.plan_id},
        "GetSubscription": by_subscription,
        "ListSubscriptions": {},
        "CancelSubscription": by_subscription,
        "PauseSubscription": by_subscription,
        "ResumeSubscription": by_subscription,
        "GetInvoice": by_invoice,
        "ListInvoices": {},
        "PreviewInvoice": by_subscription,
        "GetRevenue": {},
        "PayInvoice": by_invoice,
        "FailInvoice": by_invoice,
        "VoidInvoice": by_invoice,
    }


async def test_reading_takes_the_scope_read_and_all_else_admin(world: World, api: Api) -> None:
    subscription, invoice = await invoiced(world, api)
    await api.refuse_who_lacks_scopes(example_requests(subscription, invoice), READS)


@pytest.mark.parametrize("key", ["theirs-admin", "ours-admin-live"])
async def test_no_method_shows_or_changes_what_is_another_tenants(
    world: World, api: Api, key: str
) -> None:
    subscription, invoice = await invoiced(world, api)
    alone = {
        "PutCustomer": "created",
        "CreatePlan": "plan",
        "QuotePlan": "amount",
    }
    for name, request in example_requests(subscription, invoice).items():
        if name.startswith("List"):
            assert await api.call(name, key, **request) == getattr(pb, f"{name}Response")()
        elif name in alone:
            continue
        elif name == "GetRevenue":
            assert not (await api.call(name, key, **request)).currencies
        elif name == "CreateSubscription":
            with pytest.raises(InvalidArgumentError, match="planId: there is no such plan"):
                await api.call(name, key, **request)
        else:
            with pytest.raises(NotFoundError):
                await api.call(name, key, **request)
    for name, sign in alone.items():
        response = await api.call(name, key, **example_requests(subscription, invoice)[name])
        assert getattr(response, sign)
    after = await api.call("GetSubscription", "ours-read", subscription_id=subscription.id)
    assert after.subscription.status == pb.SUBSCRIPTION_STATUS_ACTIVE
    assert (await api.call("GetInvoice", "ours-read", invoice_id=invoice.id)).invoice == invoice


@pytest.mark.parametrize("wrong", ["", "a\x00b", "sub_1", "x" * 5000])
async def test_ids_that_nobody_gave_are_not_found(api: Api, wrong: str) -> None:
    for name, request in (
        ("GetCustomer", {"customer_id": wrong}),
        ("GetPlan", {"plan_id": wrong}),
        ("CreatePlanVersion", {"plan": pro(id=wrong)}),
        ("GetSubscription", {"subscription_id": wrong}),
        ("GetInvoice", {"invoice_id": wrong}),
        ("PayInvoice", {"invoice_id": wrong}),
    ):
        with pytest.raises(NotFoundError):
            await api.call(name, **request)
