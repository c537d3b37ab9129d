"""Customers, plans, subscriptions, invoices: what their use cases do."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import text
from usageflow.events.v1 import events_pb2

from services.invoicer.checks import CustomerInput
from services.invoicer.domain import InvoiceStatus, SubscriptionStatus
from services.invoicer.service.invoices import InvoiceFilter
from services.invoicer.service.paging import Page
from services.invoicer.service.subscriptions import SubscriptionInput
from services.kit.errors import InvalidArgumentError, NotFoundError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, World, new_tenant, pro_plan, utc

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")


@pytest.fixture
async def invoiced(world: World) -> World:
    """A world with one finalized invoice."""
    await world.subscribe(start=JANUARY)
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    await forget_events(world)
    return world


async def forget_events(world: World) -> None:
    async with world.database.transaction() as connection:
        await connection.execute(text("DELETE FROM outbox"))


async def told(world: World) -> list[tuple[str, str]]:
    """Type and status of every event in the outbox, oldest first."""
    async with world.database.transaction() as connection:
        rows = await connection.execute(text("SELECT payload FROM outbox ORDER BY message_id"))
        events = [events_pb2.BillingEvent.FromString(payload) for payload in rows.scalars()]
    return [(event.type, json.loads(event.data_json)["status"]) for event in events]


def problems(error: InvalidArgumentError) -> list[str]:
    return [problem.field for problem in error.problems]


async def test_a_customer_is_made_then_changed_field_by_field(world: World) -> None:
    ada = CustomerInput("user_123", name="Ada", email="ada@example.com", time_zone="Asia/Kathmandu")
    customer, created = await world.customers.put_customer(world.tenant, ada)
    assert created
    assert (customer.name, customer.time_zone) == ("Ada", "Asia/Kathmandu")
    change = CustomerInput("user_123", name="Ada L.", currency="EUR", update_fields=("currency",))
    customer, created = await world.customers.put_customer(world.tenant, change)
    assert not created
    assert (customer.name, customer.currency) == ("Ada", "EUR")
    assert await world.customers.get_customer(world.tenant, "user_123") == customer
    whole = CustomerInput("user_123", name="Ada L.", metadata_json='{"tier": 1.10}')
    customer, _ = await world.customers.put_customer(world.tenant, whole)
    assert (customer.email, customer.currency, customer.time_zone) == ("", "", "UTC")
    assert customer.metadata_json == '{"tier": 1.10}'


async def test_an_unknown_customer_comes_into_being_with_its_subscription(world: World) -> None:
    subscription = await world.subscribe("user_new")
    customer = await world.customers.get_customer(world.tenant, "user_new")
    assert customer.time_zone == "UTC"
    assert subscription.customer_id == "user_new"


async def test_a_subscription_without_a_start_begins_with_the_running_quarter_hour(
    world: World,
) -> None:
    world.at(utc("2026-01-15T12:07:31"))
    subscription = await world.subscribe()
    assert subscription.start_time == utc("2026-01-15T12:00")
    assert subscription.status is SubscriptionStatus.ACTIVE
    assert subscription.period is not None
    assert subscription.period.end == FEBRUARY
    assert await told(world) == [("subscription.created", "ACTIVE")]


async def test_everything_wrong_with_a_subscription_is_named_at_once(world: World) -> None:
    given = SubscriptionInput("", "plan_unknown", utc("2026-01-01T00:01"), "NEVER")
    with pytest.raises(InvalidArgumentError) as caught:
        await world.subscriptions.create_subscription(world.tenant, given)
    assert problems(caught.value) == ["customerId", "startsAt", "billingAnchor", "planId"]


async def test_a_plan_in_another_currency_than_the_customers_is_refused(world: World) -> None:
    await world.customers.put_customer(world.tenant, CustomerInput("user_123", currency="EUR"))
    with pytest.raises(InvalidArgumentError, match="the customer pays in EUR") as caught:
        await world.subscribe()
    assert problems(caught.value) == ["planId"]


async def test_a_subscription_stays_on_its_version_of_the_plan(world: World) -> None:
    first = await world.subscribe("one")
    newer = await world.plans.create_plan_version(
        world.tenant, first.plan_id, pro_plan(name="Pro 2", base_price="120")
    )
    given = SubscriptionInput("two", first.plan_id, None, "CALENDAR")
    second, _ = await world.subscriptions.create_subscription(world.tenant, given)
    assert (first.plan_version, second.plan_version, newer.version) == (1, 2, 2)
    assert (await world.plans.get_plan(world.tenant, first.plan_id, 0)).content.name == "Pro 2"
    assert (await world.plans.get_plan(world.tenant, first.plan_id, 1)).content.name == "Pro"
    with pytest.raises(NotFoundError):
        await world.plans.get_plan(world.tenant, first.plan_id, 3)


async def test_a_plan_is_given_back_as_it_was_made(world: World) -> None:
    made = await world.plans.create_plan(world.tenant, pro_plan())
    assert await world.plans.get_plan(world.tenant, made.id, 0) == made


async def test_paying_twice_is_paying_once(invoiced: World) -> None:
    (invoice,) = await invoiced.all_invoices()
    paid = await invoiced.invoices.pay_invoice(invoiced.tenant, invoice.id)
    assert paid.status is InvoiceStatus.PAID
    assert await invoiced.invoices.pay_invoice(invoiced.tenant, invoice.id) == paid
    assert await told(invoiced) == [("invoice.paid", "PAID")]
    with pytest.raises(PreconditionError, match="paid"):
        await invoiced.invoices.void_invoice(invoiced.tenant, invoice.id)
    with pytest.raises(PreconditionError, match="paid"):
        await invoiced.invoices.fail_invoice(invoiced.tenant, invoice.id)
    assert await told(invoiced) == [("invoice.paid", "PAID")]


async def test_voiding_twice_is_voiding_once_and_the_number_stays_used(invoiced: World) -> None:
    (invoice,) = await invoiced.all_invoices()
    void = await invoiced.invoices.void_invoice(invoiced.tenant, invoice.id)
    assert (void.status, void.number) == (InvoiceStatus.VOID, "INV-000001")
    assert await invoiced.invoices.void_invoice(invoiced.tenant, invoice.id) == void
    assert await told(invoiced) == [("invoice.voided", "VOID")]
    with pytest.raises(PreconditionError, match="void"):
        await invoiced.invoices.pay_invoice(invoiced.tenant, invoice.id)
    with pytest.raises(PreconditionError, match="void"):
        await invoiced.invoices.fail_invoice(invoiced.tenant, invoice.id)


async def test_the_third_failed_payment_suspends_the_subscription(invoiced: World) -> None:
    (invoice,) = await invoiced.all_invoices()
    for expected in (1, 2, 3):
        failed = await invoiced.invoices.fail_invoice(invoiced.tenant, invoice.id)
        assert (failed.status, failed.failed_payments) == (InvoiceStatus.FAILED, expected)
    failures = [("invoice.failed", "FAILED")] * 3
    suspended = [("subscription.suspended", "SUSPENDED")]
    assert await told(invoiced) == failures + suspended
    found = await invoiced.subscriptions.get_subscription(invoiced.tenant, invoice.subscription_id)
    assert found.status is SubscriptionStatus.SUSPENDED
    # One more does not suspend it once more.
    await invoiced.invoices.fail_invoice(invoiced.tenant, invoice.id)
    assert (await told(invoiced)).count(suspended[0]) == 1
    # A failed invoice can still be paid.
    paid = await invoiced.invoices.pay_invoice(invoiced.tenant, invoice.id)
    assert (paid.status, paid.failed_payments) == (InvoiceStatus.PAID, 4)


async def test_a_suspended_subscription_is_resumed(invoiced: World) -> None:
    (invoice,) = await invoiced.all_invoices()
    for _ in range(3):
        await invoiced.invoices.fail_invoice(invoiced.tenant, invoice.id)
    await forget_events(invoiced)
    for _ in range(2):
        resumed = await invoiced.subscriptions.resume_subscription(
            invoiced.tenant, invoice.subscription_id
        )
        assert resumed.status is SubscriptionStatus.ACTIVE
    assert await told(invoiced) == [("subscription.changed", "ACTIVE")]


async def test_a_cancelled_subscription_is_cancelled_once_and_never_resumed(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await forget_events(world)
    cancelled = await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    assert cancelled.cancel_time == FEBRUARY
    world.at(utc("2026-02-15"))
    again = await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    assert again.cancel_time == FEBRUARY
    assert await told(world) == [("subscription.cancelled", "CANCELLED")]
    with pytest.raises(PreconditionError, match="cancelled"):
        await world.subscriptions.resume_subscription(world.tenant, subscription.id)


async def test_a_suspended_subscription_can_be_cancelled(invoiced: World) -> None:
    (invoice,) = await invoiced.all_invoices()
    for _ in range(3):
        await invoiced.invoices.fail_invoice(invoiced.tenant, invoice.id)
    cancelled = await invoiced.subscriptions.cancel_subscription(
        invoiced.tenant, invoice.subscription_id
    )
    assert (cancelled.status, cancelled.cancel_time) == (SubscriptionStatus.CANCELLED, MARCH)


async def test_a_preview_is_the_invoice_with_the_usage_so_far(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    world.aggregator.put(world.tenant, "user_123", "API_CALL", JANUARY, "10500")
    draft = (await world.invoices.preview_invoice(world.tenant, subscription.id)).draft
    # 100.00 + 500 x 0.01 = 105.00
    assert str(draft.amount) == "105.00"
    assert await world.all_invoices() == []
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    (invoice,) = await world.all_invoices()
    assert invoice.lines == draft.lines


async def test_nothing_is_left_to_preview_when_a_subscription_has_ended(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id)
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    with pytest.raises(PreconditionError, match="nothing is left to bill"):
        await world.invoices.preview_invoice(world.tenant, subscription.id)


async def test_lists_are_paged_newest_first_and_rows_that_come_shift_nothing(world: World) -> None:
    world.at(utc("2026-04-10T12:00"))
    for number in range(3):
        await world.subscribe(f"user_{number}", start=JANUARY)
    await world.close_all()
    tenant = world.tenant

    async def pages(number: int) -> list[str]:
        """All ids of a list in pages of two; a new row comes after the first page."""
        ids: list[str] = []
        token = ""
        while True:
            page = Page(2, token)
            if number == 0:
                customers, token = await world.customers.list_customers(tenant, page)
                found = [customer.id for customer in customers]
            elif number == 1:
                plans, token = await world.plans.list_plans(tenant, page)
                found = [plan.id for plan in plans]
            elif number == 2:
                subscriptions, token = await world.subscriptions.list_subscriptions(
                    tenant, "", page
                )
                found = [subscription.id for subscription in subscriptions]
            else:
                invoices, token = await world.invoices.list_invoices(tenant, InvoiceFilter(), page)
                found = [invoice.id for invoice in invoices]
            assert 1 <= len(found) <= 2
            if not ids:
                world.at(world.clock() + timedelta(minutes=1))
                await world.subscribe(f"later_{number}", start=JANUARY)
                await world.close_all()
            ids += found
            if not token:
                return ids

    for number, expected in enumerate((3, 4, 5, 18)):
        ids = await pages(number)
        assert len(ids) == len(set(ids)) == expected
    customers, _ = await world.customers.list_customers(tenant, Page())
    assert customers[0].id == "later_3"


@pytest.mark.parametrize("token", ["x", "WyJhIl0", "WyJhIiwiYiJd", "!"])
async def test_a_token_of_something_else_is_refused(world: World, token: str) -> None:
    for listing in (
        world.customers.list_customers(world.tenant, Page(2, token)),
        world.plans.list_plans(world.tenant, Page(2, token)),
        world.subscriptions.list_subscriptions(world.tenant, "", Page(2, token)),
        world.invoices.list_invoices(world.tenant, InvoiceFilter(), Page(2, token)),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            await listing
        assert problems(caught.value) == ["cursor"]


async def test_invoices_are_listed_by_customer_subscription_and_status(world: World) -> None:
    world.at(utc("2026-03-10"))
    one = await world.subscribe("one", start=JANUARY)
    await world.subscribe("two", start=JANUARY)
    await world.close_all()
    first = (await world.all_invoices())[0]
    await world.invoices.pay_invoice(world.tenant, first.id)

    async def count(**wanted: object) -> int:
        chosen = InvoiceFilter(**wanted)  # type: ignore[arg-type]
        found, _ = await world.invoices.list_invoices(world.tenant, chosen, Page())
        return len(found)

    assert await count() == 4
    assert await count(customer_id="one") == 2
    assert await count(customer_id="nobody") == 0
    assert await count(customer_id="a\x00b") == 0
    assert await count(subscription_id=one.id) == 2
    assert await count(subscription_id="sub_\x00") == 0
    assert await count(status=InvoiceStatus.PAID) == 1
    assert await count(status=InvoiceStatus.DRAFT) == 0


@pytest.mark.parametrize("other_mode", [True, False])
async def test_a_tenant_sees_and_changes_nothing_of_another(
    invoiced: World, other_mode: bool
) -> None:
    """Neither another organization nor the other mode of the same one."""
    tenant = invoiced.tenant
    other = tenant._replace(mode="live") if other_mode else new_tenant()
    (invoice,) = await invoiced.all_invoices()
    subscription = await invoiced.subscriptions.get_subscription(tenant, invoice.subscription_id)
    plan_id = subscription.plan_id
    for call in (
        invoiced.customers.get_customer(other, "user_123"),
        invoiced.plans.get_plan(other, plan_id, 0),
        invoiced.plans.create_plan_version(other, plan_id, pro_plan()),
        invoiced.subscriptions.get_subscription(other, subscription.id),
        invoiced.subscriptions.cancel_subscription(other, subscription.id),
        invoiced.subscriptions.resume_subscription(other, subscription.id),
        invoiced.invoices.preview_invoice(other, subscription.id),
        invoiced.invoices.get_invoice(other, invoice.id),
        invoiced.invoices.pay_invoice(other, invoice.id),
        invoiced.invoices.fail_invoice(other, invoice.id),
        invoiced.invoices.void_invoice(other, invoice.id),
    ):
        with pytest.raises(NotFoundError):
            await call
    with pytest.raises(InvalidArgumentError, match="there is no such plan"):
        await invoiced.subscriptions.create_subscription(
            other, SubscriptionInput("user_123", plan_id, None, "CALENDAR")
        )
    wanted = InvoiceFilter(customer_id="user_123", subscription_id=subscription.id)
    assert await invoiced.customers.list_customers(other, Page()) == ([], "")
    assert await invoiced.plans.list_plans(other, Page()) == ([], "")
    assert await invoiced.subscriptions.list_subscriptions(other, "user_123", Page()) == ([], "")
    assert await invoiced.invoices.list_invoices(other, wanted, Page()) == ([], "")
    _, created = await invoiced.customers.put_customer(other, CustomerInput("user_123"))
    assert created
    assert (await invoiced.invoices.get_invoice(tenant, invoice.id)) == invoice
    after = await invoiced.subscriptions.get_subscription(tenant, subscription.id)
    assert after == subscription
