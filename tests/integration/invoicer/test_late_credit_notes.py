"""Invoiced periods that cost less after all, of organizations that want credit notes for them."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.invoicer.billing_settings import LateUsage
from services.invoicer.checks import MetricPriceInput
from services.invoicer.credit_notes import CreditNote
from services.invoicer.domain import Invoice, InvoiceStatus, LineKind, SubscriptionStatus
from services.invoicer.exact import total
from services.invoicer.line_events import CountedPage, CountedUsage
from services.invoicer.readings import Counted
from services.invoicer.service.billing_settings import SettingsInput
from services.invoicer.service.line_events import LineEvents
from services.invoicer.service.paging import Page
from services.invoicer.term_checks import CreditNoteInput, DiscountInput, TaxRateInput
from services.kit.database import TenantKey
from tests.integration.invoicer.stand_ins import (
    GRACE,
    LATE_QUIET,
    World,
    new_tenant,
    pro_plan,
    utc,
)
from tests.waiting import until

MONTHS = [utc(f"2026-{month:02}-01") for month in range(1, 8)]
JANUARY, FEBRUARY, MARCH, APRIL, *_ = MONTHS
CALLS = MetricPriceInput("API_CALL", "PER_UNIT", "", {"unitPrice": "0.01"})
WAIT_S = 60.0


async def want_credit_notes(world: World) -> None:
    given = SettingsInput(late_usage=LateUsage.CREDIT_NOTE)
    await world.settings.update_settings(world.tenant, given, by_key="key_1")


def use(world: World, quantity: str, month: Any = JANUARY, metric: str = "API_CALL") -> None:
    world.aggregator.put(world.tenant, "user_123", metric, month, quantity)


async def close(world: World, month: Any) -> None:
    """What ends then, with what was read marked by the month."""
    world.at(month + GRACE)
    world.aggregator.counted_batch_ids = bytes([month.month]) * 16
    await world.close_all()


async def january(world: World, *, rate: str = "", **plan: Any) -> Invoice:
    """The invoice of 1,250 calls, 12.50, and 100.00; the organization wants credit notes."""
    await want_credit_notes(world)
    if rate:
        made = await world.taxes.create_tax_rate(world.tenant, TaxRateInput("VAT", rate))
        await world.taxes.assign_tax_rates(world.tenant, "", [made.id])
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[CALLS], **plan))
    use(world, "1250")
    await close(world, FEBRUARY)
    (invoice,) = await world.all_invoices()
    return invoice


async def notes(world: World, tenant: TenantKey | None = None) -> list[CreditNote]:
    """Oldest first."""
    found, _ = await world.credit_notes.list_credit_notes(tenant or world.tenant, "", "", Page(100))
    return found[::-1]


def late(invoice: Invoice) -> list[str]:
    """What it bills of earlier periods."""
    return [str(line.amount) for line in invoice.lines if line.kind is LineKind.LATE_USAGE]


async def test_what_costs_less_after_all_is_credited_with_its_tax(world: World) -> None:
    first = await january(world, rate="19")
    use(world, "1000")
    await close(world, MARCH)
    (note,) = await notes(world)
    draft = note.draft
    assert (note.number, draft.invoice_id, draft.refund_reference) == ("CN-000001", first.id, "")
    words = "API_CALL, change of 2026-01-01 to 2026-02-01: 1,000, 1,000 x 0.01 = 10.00"
    # 2.50 x 19 / 100 = 0.475
    assert [(each.position, each.description, str(each.amount)) for each in draft.lines] == [
        (2, f"{words}, 12.50 billed before", "2.50"),
        (3, "VAT 19 %", "0.48"),
    ]
    assert draft.reason == "Usage of 2026-01-01 to 2026-02-01 comes to less than was billed"
    (change,) = draft.changes
    assert (change.kind, change.metric, change.period) == (
        LineKind.LATE_USAGE,
        "API_CALL",
        first.period,
    )
    assert (str(change.quantity), str(change.amount)) == ("-250", "-2.50")
    corrected, second = await world.all_invoices()
    assert corrected.amount_due == first.amount - Decimal("2.98")
    assert late(second) == []
    # It is done once.
    await close(world, APRIL)
    assert await notes(world) == [note]
    assert late((await world.all_invoices())[-1]) == []


async def test_what_costs_more_is_on_the_next_invoice(world: World) -> None:
    await january(world)
    use(world, "1300")
    await close(world, MARCH)
    assert await notes(world) == []
    assert late((await world.all_invoices())[-1]) == ["0.50"]


async def test_of_a_paid_invoice_it_becomes_credit_that_pays_the_next(world: World) -> None:
    first = await january(world)
    await world.invoices.pay_invoice(world.tenant, first.id)
    use(world, "1000")
    await close(world, MARCH)
    (note,) = await notes(world)
    (grants, _) = await world.credits.list_grants(world.tenant, "user_123", Page())
    assert [(each.id, each.description) for each in grants] == [
        (note.draft.refund_reference, "Refund of CN-000001")
    ]
    paid, second = await world.all_invoices()
    assert (paid.status, paid.amount_due) == (InvoiceStatus.PAID, first.amount)
    assert (second.amount, second.credits_applied) == (Decimal("100.00"), Decimal("2.50"))


async def test_what_credits_all_of_it_pays_it_and_ends_a_suspension(world: World) -> None:
    first = await january(world, base_price="0")
    for _ in range(3):
        await world.invoices.fail_invoice(world.tenant, first.id)
    use(world, "0")
    await close(world, MARCH)
    assert (await world.all_invoices())[0].status is InvoiceStatus.PAID
    found = await world.subscriptions.get_subscription(world.tenant, first.subscription_id)
    assert (found.status, found.period and found.period.start) == (
        SubscriptionStatus.ACTIVE,
        MARCH,
    )


async def test_what_does_not_fit_on_the_invoice_is_on_the_next(world: World) -> None:
    """Somebody has credited the line already; another corrects usage that the next one billed."""
    first = await january(world)
    given = CreditNoteInput(first.id, "Sorry", ((2, "12.00"),))
    await world.credit_notes.create_credit_note(world.tenant, given)
    use(world, "1000")
    await close(world, MARCH)
    assert len(await notes(world)) == 1
    second = (await world.all_invoices())[-1]
    assert late(second) == ["-2.50"]
    use(world, "5000", FEBRUARY)
    await close(world, APRIL)
    assert late((await world.all_invoices())[-1]) == ["50.00"]
    use(world, "1", FEBRUARY)
    await close(world, MONTHS[4])
    assert len(await notes(world)) == 1
    assert late((await world.all_invoices())[-1]) == ["-49.99"]


async def test_an_invoice_that_is_just_being_paid_is_left_alone(world: World) -> None:
    first = await january(world)
    async with world.database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO payment_attempts (organization_id, mode, invoice_id, number, provider,"
                " provider_customer, provider_method, amount, currency, state, start_time)"
                " SELECT organization_id, mode, id, 1, 'STRIPE', 'cus_1', 'pm_1', amount, currency,"
                " 'PENDING', now() FROM invoices"
            )
        )
    use(world, "1000")
    await close(world, MARCH)
    assert await notes(world) == []
    assert late((await world.all_invoices())[-1]) == ["-2.50"]
    assert (await world.all_invoices())[0].amount_due == first.amount


async def test_void_invoices_are_not_corrected(world: World) -> None:
    first = await january(world)
    await world.invoices.void_invoice(world.tenant, first.id)
    use(world, "1000")
    await close(world, MARCH)
    assert await notes(world) == []
    assert late((await world.all_invoices())[-1]) == []


async def test_a_minimum_keeps_a_period_at_its_price(world: World) -> None:
    """Nothing is to be credited: the quantity is corrected where the amount is, at 0.00."""
    await january(world, minimum="112.50")
    use(world, "1000")
    await close(world, MARCH)
    assert await notes(world) == []
    second = (await world.all_invoices())[-1]
    of_january = [line.amount for line in second.lines if line.period.start == JANUARY]
    assert len(of_january) == 2
    assert total(of_january) == 0


async def test_after_the_last_invoice_it_needs_no_other(world: World) -> None:
    first = await january(world)
    await world.subscriptions.cancel_subscription(world.tenant, first.subscription_id, "NOW")
    await close(world, MARCH)
    invoices = await world.all_invoices()
    use(world, "1000")
    world.at(world.clock.time + LATE_QUIET)
    await world.close_all()
    (note,) = await notes(world)
    assert (note.draft.invoice_id, str(note.draft.amount)) == (first.id, "2.50")
    assert [each.id for each in await world.all_invoices()] == [each.id for each in invoices]
    world.at(world.clock.time + LATE_QUIET)
    assert await world.close_all() == 0


async def test_a_preview_has_what_the_invoice_will_have(world: World) -> None:
    first = await january(world)
    use(world, "1000")
    world.at(MARCH)
    sub_id = first.subscription_id
    preview = await world.invoices.preview_invoice(world.tenant, sub_id)
    await close(world, MARCH)
    second = (await world.all_invoices())[-1]
    assert preview.draft.lines == second.lines
    assert preview.projected.lines == second.lines


async def test_late_usage_rests_on_what_has_come_since_the_credit_note(world: World) -> None:
    await january(world)
    use(world, "1000")
    await close(world, MARCH)
    use(world, "1001")
    await close(world, APRIL)
    third = (await world.all_invoices())[-1]
    (number,) = [
        number
        for number, line in enumerate(third.lines, start=1)
        if line.kind is LineKind.LATE_USAGE
    ]
    asked: list[CountedUsage] = []

    class Events:
        """Notes what is asked."""

        async def list_counted(
            self, tenant: TenantKey, wanted: CountedUsage, page_size: int, page_token: str
        ) -> CountedPage:
            asked.append(wanted)
            return CountedPage((), "", dropped=False)

    found = await LineEvents(world.database, Events()).list_line_events(
        world.tenant, third.id, number, Page()
    )
    assert found.exact
    assert [(each.since, each.until) for each in asked] == [
        (Counted(MARCH + GRACE, b"\3" * 16), Counted(APRIL + GRACE, b"\4" * 16))
    ]


async def test_on_a_test_clock_it_happens_at_its_time(world: World) -> None:
    await want_credit_notes(world)
    clock = await world.clocks.create_clock(world.tenant, "user_123", None)
    await world.go_on()
    await world.subscribe(start=JANUARY, plan=pro_plan(metrics=[CALLS]))
    use(world, "1250")
    await world.clocks.advance_clock(world.tenant, clock.id, FEBRUARY + GRACE)
    await world.go_on()
    use(world, "1000")
    await world.clocks.advance_clock(world.tenant, clock.id, APRIL + GRACE)
    await world.go_on()
    (note,) = await notes(world)
    assert note.create_time == MARCH + GRACE


PLANS = {
    "a price a unit": pro_plan(metrics=[CALLS]),
    "included units and tiers": pro_plan(
        metrics=[
            MetricPriceInput(
                "API_CALL",
                "GRADUATED",
                "100",
                {
                    "tiers": [
                        {"upTo": "1000", "unitPrice": "0.05", "flatPrice": "3"},
                        {"upTo": None, "unitPrice": "0.013"},
                    ]
                },
            ),
            MetricPriceInput("AI_TOKEN", "PACKAGE", "", {"packageSize": "7", "packagePrice": "1"}),
        ]
    ),
    "a minimum and a maximum": pro_plan(
        metrics=[CALLS], base_price="0", minimum="11.11", maximum="20"
    ),
    "amounts and percents off": pro_plan(
        metrics=[CALLS], discounts=[DiscountInput(amount="9.99"), DiscountInput(percent="12.5")]
    ),
}
# What January, February and March come to at the end of each month, in calls; tokens are a third.
SEEN = [
    (1250, 0, 0),
    (1001, 1500, 0),
    (1400, 3000, 2500),
    (800, 100, 2501),
    (0, 0, 2000),
    (10, 1, 0),
]


@pytest.mark.parametrize("name", PLANS)
async def test_both_ways_come_to_the_same(world: World, name: str) -> None:
    """Of all that is billed and credited; and the periods' own documents tell what they cost."""
    totals = {}
    for way in LateUsage:
        world.tenant = new_tenant()
        given = SettingsInput(late_usage=way)
        await world.settings.update_settings(world.tenant, given, by_key="")
        world.at(JANUARY)
        await world.subscribe(start=JANUARY, plan=PLANS[name])
        for end, seen in zip(MONTHS[1:], SEEN, strict=True):
            for month, calls in zip(MONTHS, seen, strict=False):
                use(world, str(calls), month)
                use(world, str(calls // 3), month, "AI_TOKEN")
            await close(world, end)
        invoices = await world.all_invoices()
        assert len(invoices) == 6
        # What is carried is still owed.
        carried = total(
            line.amount
            for invoice in invoices
            for line in invoice.lines
            if line.kind is LineKind.CREDIT_CARRIED
        )
        credited = total(note.draft.amount for note in await notes(world))
        totals[way] = total(each.amount for each in invoices) - credited - carried
        assert (credited > 0) == (way is LateUsage.CREDIT_NOTE)
    assert totals[LateUsage.NEXT_INVOICE] == totals[LateUsage.CREDIT_NOTE]


async def test_two_replicas_write_it_once(world: World) -> None:
    for number in range(8):
        await world.subscribe(f"user_{number}", start=JANUARY, plan=pro_plan(metrics=[CALLS]))
        world.aggregator.put(world.tenant, f"user_{number}", "API_CALL", JANUARY, "1250")
    await want_credit_notes(world)
    await close(world, FEBRUARY)
    for number in range(8):
        world.aggregator.put(world.tenant, f"user_{number}", "API_CALL", JANUARY, "1000")
    world.at(MARCH + GRACE)
    replicas = [world.new_closer(chunk_max=3, batch_max=2, lease_s=0) for _ in range(2)]

    async def close_all(number: int) -> None:
        while await replicas[number].close_chunk():
            pass

    await asyncio.gather(close_all(0), close_all(1))
    await world.close_all()
    found = await notes(world)
    assert sorted(each.number for each in found) == [f"CN-{n:06}" for n in range(1, 9)]
    assert len({each.draft.invoice_id for each in found}) == 8
    assert len(await world.all_invoices()) == 16


_REPLICA = """
import asyncio, sys
from datetime import datetime
from services.invoicer.event_prices import EventPricedUsage
from services.kit.metrics import AggregatorMetrics
from services.invoicer.usage import AggregatorUsage
from services.kit.database import Database
from services.kit.grpc_client import open_channel
from tests.integration.invoicer.stand_ins import TOKEN, Clock, StandInAggregator, World, new_tenant

async def main(url, address, now):
    database = Database(url, pool_size=2)
    clock = Clock(datetime.fromisoformat(now))
    aggregator = StandInAggregator(clock.time)
    async with open_channel(address) as channel:
        usage = EventPricedUsage(AggregatorUsage(channel, TOKEN, timeout_s=5), aggregator)
        metrics = AggregatorMetrics(channel, TOKEN, timeout_s=5)
        await World(database, clock, aggregator, usage, metrics, new_tenant()).close_all()

asyncio.run(main(*sys.argv[1:]))
"""
_BLOCKED = """
    SELECT count(*) FROM pg_locks
    WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""


async def _blocked(connection: AsyncConnection, process: Process) -> bool:
    """Whether the process waits for what this transaction holds."""
    assert process.returncode is None
    return bool((await connection.execute(text(_BLOCKED))).scalar_one())


async def test_a_replica_that_is_killed_in_the_middle_leaves_nothing(
    world: World, database_url: str, aggregator_address: str, tmp_path: Path
) -> None:
    """By signal 9, when the credit note is written and the invoice is not numbered yet."""
    await january(world)
    use(world, "1000")
    world.at(MARCH + GRACE)
    program = tmp_path / "replica.py"
    program.write_text(_REPLICA)
    async with world.database.transaction() as connection:
        locked = "SELECT FROM invoice_counters WHERE series = 'INV' FOR UPDATE"
        await connection.execute(text(locked))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), database_url, aggregator_address),
            world.clock.time.isoformat(),
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )
        await until("the replica's wait", lambda: _blocked(connection, process), WAIT_S)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert await notes(world) == []
    async with world.database.transaction() as connection:
        await connection.execute(text("UPDATE subscriptions SET attempt_time = '-infinity'"))
    await world.close_all()
    assert [each.number for each in await notes(world)] == ["CN-000001"]
    assert [each.number for each in await world.all_invoices()] == ["INV-000001", "INV-000002"]


_NOTE = (
    "INSERT INTO credit_notes SELECT (jsonb_populate_record(n, "
    '\'{{"id": "cn_x", "sequence": 2, "number": "CN-000002", {}}}\')).* FROM credit_notes n'
)
_LINE = (
    "INSERT INTO credit_note_lines SELECT organization_id, mode, 'cn_x', invoice_id, position, '', "
    "1 FROM credit_note_lines"
)
_CHANGE = (
    "INSERT INTO credit_note_changes SELECT (jsonb_populate_record(c, "
    '\'{{"credit_note_id": "cn_x", {}}}\')).* FROM credit_note_changes c'
)
_TAKE = "UPDATE invoice_counters SET newest_sequence = 2 WHERE series = 'CN'"
_HASH = (
    "INSERT INTO document_hashes (organization_id, mode, series, sequence) "
    "SELECT organization_id, mode, 'CN', 2 FROM invoice_counters LIMIT 1"
)


@pytest.mark.parametrize(
    ("statements", "why"),
    [
        (["UPDATE credit_note_changes SET amount = 0"], "UPDATE of credit_note_changes is refused"),
        (["DELETE FROM credit_note_changes"], "DELETE of credit_note_changes is refused"),
        (["TRUNCATE credit_note_changes"], "TRUNCATE of credit_note_changes is refused"),
        (
            [_CHANGE.format('"position": 2').replace('"credit_note_id": "cn_x", ', "")],
            "has exactly the changes it was made with",
        ),
        (
            [_TAKE, _NOTE.format('"amount": 1'), _LINE, _CHANGE.format('"amount": -2'), _HASH],
            "credits 1, its 1 changes come to -2",
        ),
        (
            [
                _TAKE,
                _NOTE.format('"amount": 1'),
                _LINE,
                _CHANGE.format('"amount": -1, "period_end": "2026-03-01T00:00:00Z"'),
                _HASH,
            ],
            "credits 1, its 0 changes come to 0",
        ),
        ([_TAKE, _NOTE.format('"amount": 1'), _LINE, _HASH], "when all of its lines are there"),
        ([_TAKE, _NOTE.format('"amount": 1, "reading_id": null')], "ck_credit_notes_changes_count"),
        (
            [_TAKE, _NOTE.format('"amount": 1, "changes_count": 0, "reading_id": null')],
            "ck_credit_notes_next_invoice_id",
        ),
    ],
)
async def test_the_database_keeps_what_they_change(
    world: World, statements: list[str], why: str
) -> None:
    await january(world)
    use(world, "1000")
    await close(world, MARCH)
    with pytest.raises(DBAPIError, match=why):
        async with world.database.transaction() as connection:
            for statement in statements:
                await connection.execute(text(statement))


async def test_another_tenants_settings_are_their_own(world: World) -> None:
    await january(world)
    other = new_tenant()
    assert (await world.settings.get_settings(other)).late_usage is LateUsage.NEXT_INVOICE
    assert (await world.settings.get_settings(world.tenant)).late_usage is LateUsage.CREDIT_NOTE
