"""What callers do at any seconds, through the services and the database: time is charged as its
seconds cost, previews say what invoices will, and an audit with code of its own finds no fault.
"""

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from usageflow.invoicer.v1 import audit_pb2

from cli.auditing.invoices.audit import audit_invoices
from cli.auditing.invoices.books import Row
from cli.auditing.invoices.parts import CountedPage
from cli.auditing.parts import Metric
from services.invoicer.audit import repository
from services.invoicer.changes import Timing, period_end
from services.invoicer.checks import MetricPriceInput, PlanInput
from services.invoicer.domain import Invoice, LineKind, Plan, Subscription, SubscriptionStatus
from services.invoicer.exact import total
from services.invoicer.periods import BillingAnchor, quarter_hour_of
from services.invoicer.phases import PhaseKind
from services.invoicer.service.billing_settings import SettingsInput
from services.invoicer.service.subscription_changes import ChangeInput
from services.invoicer.service.subscriptions import SubscriptionInput
from services.invoicer.term_checks import DiscountInput
from services.kit.errors import PreconditionError
from tests.integration.invoicer.stand_ins import World
from tests.unit.invoicer.naive_time import NaiveTime

START = datetime(2026, 1, 12, tzinfo=UTC)
SECOND, QUARTER, DAY = timedelta(seconds=1), timedelta(minutes=15), timedelta(days=1)
STEPS = 14
# Some thousands a second.
PRICE = 10**11
CENT = Fraction(1, 100)
TIME = (LineKind.BASE, LineKind.USAGE, LineKind.DISCOUNT, LineKind.MAXIMUM, LineKind.MINIMUM)
ADVANCE = {"base_price_timing": "IN_ADVANCE"}
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0"}, minimum=str(PRICE * 5))


def plan_of(base: int, length: str = "MONTHLY", **more: object) -> PlanInput:
    given = {"metrics": [], "name": f"P{base} {length}", **more}
    return PlanInput(currency="USD", base_price=str(PRICE * base), billing_period=length, **given)  # type: ignore[arg-type]


PLANS = [
    plan_of(1),
    plan_of(2, **ADVANCE),
    plan_of(3, "WEEKLY", **ADVANCE),
    plan_of(40, "YEARLY"),
    plan_of(50, "YEARLY", **ADVANCE),
    plan_of(0, minimum=str(PRICE * 2)),
    plan_of(0, metrics=[CALLS]),
    plan_of(4, discounts=[DiscountInput("Off", amount=str(PRICE // 10**5))], **ADVANCE),
]


class Parts:
    """In the place of invoicer and ingest, for an audit: the rows of the database, and no usage."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def metrics(self) -> Sequence[Metric]:
        return [Metric("API_CALL", known=True)]

    async def billing_rows(self) -> AsyncIterator[tuple[int, Row]]:
        queries = [
            (audit_pb2.BILLING_ROW_KIND_PLAN, repository.PLANS),
            (audit_pb2.BILLING_ROW_KIND_SUBSCRIPTION, repository.SUBSCRIPTIONS),
            (audit_pb2.BILLING_ROW_KIND_COUNTER, repository.COUNTERS),
            (audit_pb2.BILLING_ROW_KIND_DOCUMENT, repository.DOCUMENTS),
        ]
        async with self._world.database.transaction() as connection:
            for kind, query in queries:
                tenant = self._world.tenant
                async for rows in repository.stream_rows(connection, query, tenant, 100):
                    for row in rows:
                        yield kind, json.loads(row, parse_int=str, parse_float=str)

    async def counted_events(self, _invoice: Row, _line: Row) -> AsyncIterator[CountedPage]:
        yield CountedPage([])


async def problems(world: World) -> list[tuple[str, str, str, str]]:
    """What an audit of all invoices finds."""
    parts = Parts(world)
    ends = (datetime(2020, 1, 1, tzinfo=UTC), datetime(2090, 1, 1, tzinfo=UTC))
    outcome = await audit_invoices(parts, *ends, lambda _: None)  # type: ignore[arg-type]
    assert outcome.recomputed
    return [(each.document, each.what, each.stored, each.expected) for each in outcome.problems]


async def act(
    world: World,
    naive: NaiveTime,
    found: Subscription,
    plans: Sequence[Plan],
    chance: random.Random,
) -> None:
    """One thing that a caller does, to both."""
    now, pick = world.clock.time, chance.randrange(1000)
    timing = chance.choice([Timing.NOW, Timing.NOW, Timing.PERIOD_END])
    second = now.replace(microsecond=0) if timing is Timing.NOW else period_end(found, now)
    action = chance.choice(["change", "change", "change", "pause", "resume", "cancel"])
    if found.cancel_time is not None:
        action = "uncancel"
    if action == "change":
        chosen, quantity = plans[pick % len(plans)], 1 + pick % 3
        given = ChangeInput(found.id, chosen.id, quantity=quantity, timing=timing)
        preview = await world.changes.preview_change(world.tenant, given)
        after = await world.changes.change_subscription(world.tenant, given)
        assert preview.subscription.phases == after.phases
        naive.change(second, chosen, quantity)
    elif action == "pause":
        until = None
        if pick % 2:
            until = quarter_hour_of(second) + (1 + pick % 50) * QUARTER + QUARTER
        await world.subscriptions.pause_subscription(world.tenant, found.id, timing, until)
        naive.pause(second, until)
    elif action == "resume":
        await world.subscriptions.resume_subscription(world.tenant, found.id)
        naive.resume(now.replace(microsecond=0))
    elif action == "cancel":
        await world.subscriptions.cancel_subscription(world.tenant, found.id, timing)
        naive.cancel(second)
    else:
        await world.subscriptions.uncancel_subscription(world.tenant, found.id)
        naive.uncancel()


def charged(invoices: Sequence[Invoice]) -> tuple[Fraction, int]:
    """What is charged for time, and how often something was rounded at most."""
    lines = [line for each in invoices for line in each.lines if line.kind in TIME]
    roundings = 2 * sum(len(line.steps) for line in lines)
    return Fraction(total(line.amount for line in lines)), roundings


@pytest.mark.parametrize("seed", range(24))
async def test_seconds_are_charged_as_they_cost_and_an_audit_agrees(
    world: World, seed: int
) -> None:
    chance = random.Random(seed)
    await world.settings.update_settings(
        world.tenant, SettingsInput(chance.choice([0, 120, 3600])), by_key=""
    )
    plans = [await world.plans.create_plan(world.tenant, each) for each in PLANS]
    anchor = chance.choice(list(BillingAnchor))
    world.at(START + chance.randrange(40 * 86_400) * SECOND)
    given = SubscriptionInput("user_123", plans[seed % len(plans)].id, None, anchor)
    made, _ = await world.subscriptions.create_subscription(world.tenant, given)
    naive = NaiveTime(plans[seed % len(plans)], world.clock.time, None, anchor, "UTC")
    for _ in range(STEPS):
        found = await world.subscriptions.get_subscription(world.tenant, made.id)
        wait = chance.choice([chance.randrange(1, 400), chance.randrange(1, 1200), -1, 86_400 * 9])
        assert found.period is not None
        ahead = found.period.end - world.clock.time + chance.randrange(900) * SECOND
        step = wait * SECOND if wait > 0 or ahead.days > 40 else ahead
        # What is withdrawn is not in the past.
        if found.status is SubscriptionStatus.CANCELLED and found.priced_until is not None:
            step = min(step, found.priced_until - world.clock.time - SECOND)
        world.at(world.clock.time + max(step, SECOND))
        await world.close_all()
        found = await world.subscriptions.get_subscription(world.tenant, made.id)
        if found.cancel_time is not None and found.cancel_time <= world.clock.time:
            break
        with suppress(PreconditionError):
            await act(world, naive, found, plans, chance)
    found = await world.subscriptions.get_subscription(world.tenant, made.id)
    if found.cancel_time is None or found.cancel_time > world.clock.time:
        world.at(world.clock.time + SECOND)
        await world.subscriptions.cancel_subscription(world.tenant, made.id, Timing.NOW)
        if found.priced_until is None or found.priced_until > world.clock.time:
            naive.cancel(world.clock.time)
    world.at(world.clock.time + 2 * DAY)
    await world.close_all()
    invoices = await world.all_invoices()
    amount, roundings = charged(invoices)
    assert abs(amount - naive.cost()) <= CENT * roundings
    kinds = {phase.kind for phase in found.phases}
    assert kinds <= {PhaseKind.BILLED, PhaseKind.PAUSED}
    if invoices:
        assert await problems(world) == []
