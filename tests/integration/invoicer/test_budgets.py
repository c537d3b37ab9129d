"""What periods come to, and what they were expected to: each percentage is told exactly once."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.invoicer import budget_watcher
from services.invoicer.billing_settings import LateUsage
from services.invoicer.budgets import Budget, BudgetInput
from services.invoicer.service.billing_settings import SettingsInput
from services.invoicer.service.subscription_changes import ChangeInput
from services.invoicer.term_checks import TaxRateInput
from services.kit import audit
from services.kit.errors import NotFoundError, PreconditionError
from tests.integration.invoicer.stand_ins import GRACE, TOKEN, World, new_tenant, pro_plan, utc
from tests.integration.invoicer.test_advancing_clocks import advance, on_clock
from tests.integration.invoicer.test_closing import events
from tests.integration.invoicer.test_subscription_changes import big, small
from tests.waiting import until

JANUARY, FEBRUARY, MARCH = utc("2026-01-01"), utc("2026-02-01"), utc("2026-03-01")
ELEVENTH = utc("2026-01-11")
WAIT_S = 60


@pytest.fixture(autouse=True)
def _each_look_finds_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the look before took."""
    monkeypatch.setattr(budget_watcher, "PAUSES_A_LOOK", 0)


async def set_budget(
    world: World, subscription_id: str, amount: str, *percents: int, by_key: str = ""
) -> Budget:
    given = BudgetInput(amount, percents)
    return await world.budgets.set_budget(world.tenant, subscription_id, given, by_key=by_key)


async def told(world: World) -> list[dict[str, Any]]:
    """The data of all that was told, by period, amount and percentage."""
    found = [
        json.loads(event.data_json)
        for event in await events(world.database)
        if event.type == "usage.threshold_reached"
    ]
    return sorted(
        found, key=lambda each: (each["periodStart"], Decimal(each["amount"]), each["percent"])
    )


async def percents(world: World) -> list[tuple[str, str, int]]:
    """(start of the period, spent, percentage) of all that was told."""
    return [
        (each["periodStart"][:10], each["spent"], each["percent"]) for each in await told(world)
    ]


async def look(world: World) -> list[tuple[str, str, int]]:
    """All that was told after one more look."""
    await world.new_watcher().round()
    return await percents(world)


def put(world: World, start: datetime, calls: str, customer_id: str = "user_123") -> None:
    world.aggregator.put(world.tenant, customer_id, "API_CALL", start, calls)


async def test_each_percentage_is_told_once_when_it_is_reached_to_the_cent(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "120")
    put(world, JANUARY, "11999")
    assert await look(world) == [("2026-01-01", "119.99", 50), ("2026-01-01", "119.99", 80)]
    put(world, JANUARY, "12000")
    assert (await look(world))[2:] == [("2026-01-01", "120.00", 100)]
    put(world, JANUARY, "90000")
    assert len(await look(world)) == 3
    assert (await told(world))[2] == {
        "subscriptionId": subscription.id,
        "customerId": "user_123",
        "amount": "120.00",
        "percent": 100,
        "thresholdAmount": "120.00",
        "spent": "120.00",
        "currency": "USD",
        "periodStart": "2026-01-01T00:00:00Z",
        "periodEnd": "2026-02-01T00:00:00Z",
    }


async def test_what_counts_is_what_the_invoice_would_say_taxes_included(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    rate = await world.taxes.create_tax_rate(world.tenant, TaxRateInput("VAT", "19", False))
    await set_budget(world, subscription.id, "119.01", 33, 100)
    assert await look(world) == [("2026-01-01", "100.00", 33)]
    # 33 % of 119.01 is more digits than cents have.
    assert (await told(world))[0]["thresholdAmount"] == "39.2733"
    await world.taxes.assign_tax_rates(world.tenant, "", [rate.id])
    assert len(await look(world)) == 1
    put(world, JANUARY, "10001")  # 100.01 + 19.00
    assert (await look(world))[1:] == [("2026-01-01", "119.01", 100)]


async def test_an_invoice_tells_what_no_look_has_seen_and_the_next_period_begins_anew(
    world: World,
) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "200", 50, 60, 80)
    assert await look(world) == [("2026-01-01", "100.00", 50)]
    put(world, JANUARY, "12000")
    world.at(FEBRUARY + GRACE)
    assert await world.close_all() == 1
    january = [("2026-01-01", "100.00", 50), ("2026-01-01", "120.00", 60)]
    assert await percents(world) == january
    assert await look(world) == [*january, ("2026-02-01", "100.00", 50)]
    kinds = [event.type for event in await events(world.database)]
    assert kinds.count("invoice.created") == 1


async def test_parts_that_another_plan_cuts_are_one_period(world: World) -> None:
    world.at(JANUARY)
    subscription = await world.subscribe(start=JANUARY, plan=small())
    await set_budget(world, subscription.id, "100", 10, 76, 77)
    other = await world.plans.create_plan(world.tenant, big())
    world.at(ELEVENTH)
    await world.changes.change_subscription(
        world.tenant, ChangeInput(subscription.id, plan_id=other.id)
    )
    put(world, JANUARY, "100")  # 10.00 + 1.00
    assert await look(world) == [("2026-01-01", "11.00", 10)]
    world.at(ELEVENTH + GRACE)
    assert await world.close_all() == 1
    put(world, ELEVENTH, "100")  # 63.00 + 2.00
    found = await look(world)
    assert found[1:] == [("2026-01-01", "76.00", 76)]
    last = (await told(world))[-1]
    assert (last["periodStart"], last["periodEnd"]) == (
        "2026-01-01T00:00:00Z",
        "2026-02-01T00:00:00Z",
    )


async def test_another_amount_is_told_of_anew_and_the_same_one_is_not(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    for amount in ("100", "125", "100", "125"):
        await set_budget(world, subscription.id, amount, 80, 100)
        await look(world)
    shown = [(each["amount"], each["percent"]) for each in await told(world)]
    assert shown == [("100.00", 80), ("100.00", 100), ("125.00", 80)]


async def test_without_a_budget_nothing_is_told(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "100")
    await world.budgets.remove_budget(world.tenant, subscription.id, by_key="")
    assert await look(world) == []
    with pytest.raises(NotFoundError):
        await world.budgets.get_budget(world.tenant, subscription.id)


async def test_trials_and_periods_to_come_are_not_watched(world: World) -> None:
    later = await world.subscribe(start=FEBRUARY)
    await set_budget(world, later.id, "100")
    assert await look(world) == []
    world.at(FEBRUARY)
    assert len(await look(world)) == 3


async def test_a_subscription_that_has_ended_is_looked_at_no_more(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "1000")
    await world.subscriptions.cancel_subscription(world.tenant, subscription.id, "PERIOD_END")
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    watcher = world.new_watcher()
    assert [await watcher.round(), await watcher.round()] == [1, 0]
    with pytest.raises(PreconditionError, match="has ended"):
        await set_budget(world, subscription.id, "2000")


async def test_on_a_test_clock_it_is_told_at_the_clocks_time(world: World) -> None:
    clock = await on_clock(world)
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "110")
    put(world, FEBRUARY, "11000")
    await advance(world, clock, MARCH + GRACE)
    january = [("2026-01-01", "100.00", 50), ("2026-01-01", "100.00", 80)]
    february = [("2026-02-01", "110.00", percent) for percent in (50, 80, 100)]
    assert await percents(world) == january + february
    times = [
        event.create_time.ToJsonString()
        for event in await events(world.database)
        if event.type == "usage.threshold_reached"
    ]
    assert times == ["2026-02-01T01:00:00Z"] * 2 + ["2026-03-01T01:00:00Z"] * 3


async def test_who_has_a_budget_of_the_same_name_elsewhere_is_told_nothing(world: World) -> None:
    stranger = new_tenant()
    theirs = await world.subscribe(start=JANUARY, tenant=stranger)
    await world.subscribe(start=JANUARY)
    given = BudgetInput("1000")
    await world.budgets.set_budget(stranger, theirs.id, given, by_key="")
    put(world, JANUARY, "900000")
    assert await look(world) == []


async def test_while_usage_is_not_told_nothing_is_and_afterwards_everything(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "100", 100)
    world.aggregator.away = True
    assert await look(world) == []
    world.aggregator.away = False
    assert await look(world) == [("2026-01-01", "100.00", 100)]


async def test_what_takes_long_is_looked_at_less_often(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "1000")
    monkeypatch.setattr(budget_watcher, "PAUSES_A_LOOK", 1_000_000)
    watcher = world.new_watcher()
    assert [await watcher.round(), await watcher.round()] == [1, 0]
    await set_budget(world, subscription.id, "100", 100)
    assert await look(world) == [("2026-01-01", "100.00", 100)]


async def test_replicas_and_invoices_tell_each_percentage_once(world: World) -> None:
    numbers = range(12)
    for number in numbers:
        subscription = await world.subscribe(f"user_{number}", start=JANUARY)
        await set_budget(world, subscription.id, "100", *range(10, 101, 10))
    watchers = [world.new_watcher() for _ in range(3)]
    for calls in ("10000", "12000"):
        for number in numbers:
            put(world, JANUARY, calls, f"user_{number}")
        await asyncio.gather(*(watcher.round() for watcher in watchers))
    world.at(FEBRUARY + GRACE)
    closers = [world.new_closer() for _ in range(2)]
    await asyncio.gather(
        *(watcher.round() for watcher in watchers),
        *(closer.close_chunk() for closer in closers),
    )
    await world.close_all()
    await look(world)
    found = [
        (each["customerId"], each["periodStart"], each["percent"]) for each in await told(world)
    ]
    assert len(set(found)) == len(found) == len(numbers) * 10 * 2


async def test_a_replica_that_is_killed_before_its_commit_has_told_nothing(
    world: World, database_url: str, aggregator_address: str, tmp_path: Path
) -> None:
    """By signal 9, when it has recorded what is reached and is about to tell."""
    subscription = await world.subscribe(start=JANUARY)
    await set_budget(world, subscription.id, "100")
    program = tmp_path / "replica.py"
    program.write_text(_REPLICA)
    async with world.database.transaction() as connection:
        await connection.execute(text("LOCK TABLE outbox IN EXCLUSIVE MODE"))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(program), database_url, aggregator_address),
            env=os.environ
            | {
                "PYTHONPATH": str(Path.cwd()),
                "TOKEN": TOKEN.get_secret_value(),
                "NOW": world.clock.time.isoformat(),
            },
        )
        await until("the replica's wait", lambda: _somebody_waits(world, process), WAIT_S)
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert await told(world) == []
    # PostgreSQL has to notice first that nobody is there.
    await until("what is reached", lambda: look(world), WAIT_S)
    assert [percent for *_, percent in await look(world)] == [50, 80, 100]


async def _somebody_waits(world: World, process: Process) -> bool:
    assert process.returncode is None
    async with world.database.transaction() as connection:
        query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'outbox'::regclass"
        return bool((await connection.execute(text(query))).scalar_one())


_REPLICA = """
import asyncio, os, sys
from datetime import datetime
from pydantic import SecretStr
from services.invoicer.budget_watcher import BudgetWatcher
from services.invoicer.settings import LATE
from services.invoicer.usage import AggregatorUsage
from services.kit.database import Database
from services.kit.grpc_client import open_channel

async def main(url, aggregator):
    async with open_channel(aggregator) as channel:
        usage = AggregatorUsage(channel, SecretStr(os.environ["TOKEN"]), 60)
        now = datetime.fromisoformat(os.environ["NOW"])
        watcher = BudgetWatcher(
            Database(url), usage, lambda: now, lambda: None, late=LATE, check_s=0
        )
        await watcher.round()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_setting_and_removing_are_in_the_audit_log(world: World) -> None:
    subscription = await world.subscribe(start=JANUARY)
    for amount in ("100", "100.00", "200"):
        await set_budget(world, subscription.id, amount, by_key="key_1")
    await world.budgets.remove_budget(world.tenant, subscription.id, by_key="key_1")
    async with world.database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT payload FROM audit_outbox ORDER BY message_id")
        )
        entries = [audit.from_bytes(payload) for payload in rows.scalars()]
    found = [entry for entry in entries if entry.action.startswith("budget.")]
    assert {(each.target_id, each.key_id) for each in found} == {(subscription.id, "key_1")}
    details = [(each.action, json.loads(each.details_json)) for each in found]
    assert details == [
        (
            "budget.set",
            {
                "before": {"amount": None, "currency": None, "percents": None},
                "after": {"amount": "100.00", "currency": "USD", "percents": [50, 80, 100]},
            },
        ),
        ("budget.set", {"before": {"amount": "100.00"}, "after": {"amount": "200.00"}}),
        (
            "budget.removed",
            {"before": {"amount": "200.00", "currency": "USD", "percents": [50, 80, 100]}},
        ),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE budget_thresholds SET spent = spent + 1",
        "DELETE FROM budget_thresholds",
        "TRUNCATE budget_thresholds",
        "INSERT INTO budget_thresholds SELECT * FROM budget_thresholds LIMIT 1",
        "UPDATE budgets SET amount = 0",
        "UPDATE budgets SET percents = '{}'",
        "UPDATE budgets SET percents = '{0}'",
        "INSERT INTO budget_thresholds SELECT organization_id, mode, subscription_id, period_start,"
        " amount, 100, 99.99, reach_time FROM budget_thresholds LIMIT 1",
    ],
)
async def test_the_database_refuses_what_must_not_be(world: World, statement: str) -> None:
    subscription = await world.subscribe(start=JANUARY, plan=pro_plan(base_price="99"))
    await set_budget(world, subscription.id, "100")
    assert len(await look(world)) == 2
    with pytest.raises(DBAPIError):
        async with world.database.transaction() as connection:
            await connection.execute(text(statement))


async def test_the_loop_looks_when_it_is_woken(world: World) -> None:
    watcher = world.new_watcher(check_s=3_600)
    subscription = await world.subscribe(start=JANUARY)
    running = asyncio.create_task(watcher.run())
    await set_budget(world, subscription.id, "100", 100)
    watcher.wake()
    await asyncio.wait_for(world.committed.wait(), WAIT_S)
    running.cancel()
    assert await percents(world) == [("2026-01-01", "100.00", 100)]


async def test_what_a_credit_note_takes_off_an_earlier_invoice_is_not_off_this_one(
    world: World,
) -> None:
    given = SettingsInput(late_usage=LateUsage.CREDIT_NOTE)
    await world.settings.update_settings(world.tenant, given, by_key="")
    subscription = await world.subscribe(start=JANUARY)
    put(world, JANUARY, "12000")
    world.at(FEBRUARY + GRACE)
    await world.close_all()
    put(world, JANUARY, "11000")
    await set_budget(world, subscription.id, "100", 100)
    assert await look(world) == [("2026-02-01", "100.00", 100)]
