"""What the database refuses of seconds that are billed twice, left out, or nobody's."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.integration.invoicer.stand_ins import GRACE, World, utc
from tests.integration.invoicer.test_subscription_changes import (
    FEBRUARY,
    big,
    change,
    settled,
    small,
    started,
)

FIRST, SECOND = utc("2026-01-10T10:02:10"), utc("2026-01-10T10:04:05")


@pytest.fixture
async def changed(world: World) -> World:
    """On one plan until 10:02:10, which is invoiced; 115 s on another one; then on a third; paused
    from March on.
    """
    subscription = await started(world, small(metrics=[]))
    plans = [await world.plans.create_plan(world.tenant, big(metrics=[])) for _ in range(2)]
    world.at(FIRST)
    await change(world, subscription, plan_id=plans[0].id)
    await settled(world, FIRST + timedelta(seconds=1))
    world.at(SECOND)
    await change(world, subscription, plan_id=plans[1].id)
    await settled(world, FEBRUARY + GRACE)
    await world.subscriptions.pause_subscription(world.tenant, subscription.id, "PERIOD_END")
    return world


_OF_PHASES = (
    "organization_id, mode, subscription_id, kind, plan_id, plan_version, billing_period, "
    "anchor_time, quantity, create_time"
)


def phase(start: str, end: str, exact_start: str = "NULL", exact_end: str = "NULL") -> str:
    """Insert one like the first."""
    times = ", ".join(f"CAST({each} AS timestamptz)" for each in (start, end))
    exact = ", ".join(f"CAST({each} AS timestamptz)" for each in (exact_start, exact_end))
    return (
        f"INSERT INTO subscription_phases ({_OF_PHASES}, start_time, end_time, exact_start_time, "
        f"exact_end_time) SELECT {_OF_PHASES}, {times}, {exact} FROM subscription_phases "
        "ORDER BY start_time LIMIT 1"
    )


def moved(values: str, where: str) -> str:
    return f"UPDATE subscription_phases SET {values} WHERE {where}"


def invoice(start: str, end: str, exact_start: str, exact_end: str, kind: str = "PERIOD") -> str:
    """Insert one of the subscription."""
    same = "organization_id, mode, customer_id, subscription_id, plan_id, plan_version, currency"
    return (
        f"INSERT INTO invoices ({same}, id, amount, kind, create_time, period_start, period_end, "
        f"exact_period_start, exact_period_end) SELECT {same}, 'inv_x', 0, '{kind}', create_time, "
        f"{start}, {end}, {exact_start}, {exact_end} FROM invoices ORDER BY id LIMIT 1"
    )


LAST = "end_time IS NULL"
ONLY_TIME = "start_time = end_time"
JUNE = "'2026-06-01T00:00Z'"


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        # What begins does so within its first quarter of an hour, at a whole second.
        (phase(JUNE, "NULL", "'2026-06-01T00:15Z'"), "ck_subscription_phases_exact_start_time"),
        (phase(JUNE, "NULL", "'2026-05-31T23:59Z'"), "ck_subscription_phases_exact_start_time"),
        (phase(JUNE, "NULL", "'2026-06-01T00:00:00.5Z'"), "ck_subscription_phases_exact_start"),
        # So does what ends, around its end; and it has one.
        (phase("'2026-05-01Z'", JUNE, "NULL", "'2026-06-01T00:15Z'"), "phases_exact_end_time"),
        (phase("'2026-05-01Z'", JUNE, "NULL", "'2026-05-31T23:44:59Z'"), "phases_exact_end_time"),
        (phase("'2026-05-01Z'", JUNE, "NULL", "'2026-05-31T23:59:00.5Z'"), "phases_exact_end"),
        (phase(JUNE, "NULL", "NULL", "'2026-06-01T00:01Z'"), "phases_exact_end_time"),
        # It does not end before it begins, and has usage or time.
        (
            phase(JUNE, "'2026-06-01T00:15Z'", "'2026-06-01T00:10Z'", "'2026-06-01T00:05Z'"),
            "ck_subscription_phases_exact_time",
        ),
        (phase(JUNE, JUNE), "ck_subscription_phases_time"),
        (
            phase(JUNE, JUNE, "'2026-06-01T00:05Z'", "'2026-06-01T00:05Z'"),
            "ck_subscription_phases_time",
        ),
        (phase(JUNE, "'2026-05-01Z'"), "ck_subscription_phases_exact_time"),
        # No quarter of usage, and no second, is of two phases.
        (phase("'2026-02-10Z'", "'2026-02-11Z'"), "ex_subscription_phases_time"),
        (
            phase("'2026-02-10Z'", "'2026-02-10Z'", "'2026-02-10T00:01Z'", "'2026-02-10T00:02Z'"),
            "ex_subscription_phases_exact_time",
        ),
        # Periods that begin anew are priced from their first quarter of an hour on.
        (
            "INSERT INTO subscription_phases (organization_id, mode, subscription_id, kind, "
            "plan_id, plan_version, billing_period, anchor_time, exact_anchor_time, quantity, "
            "create_time, start_time) SELECT organization_id, mode, subscription_id, kind, plan_id,"
            " plan_version, billing_period, anchor_time, anchor_time + interval '15 minutes', "
            f"quantity, create_time, {JUNE} FROM subscription_phases LIMIT 1",
            "ck_subscription_phases_exact_anchor_time",
        ),
        # What is invoiced keeps its seconds; nothing else of a phase changes but its end.
        (
            moved("exact_end_time = '2026-01-10T10:01Z'", "end_time = '2026-01-10T10:00Z'"),
            "what is invoiced keeps its phases",
        ),
        (moved("exact_end_time = '2026-01-10T10:04Z'", ONLY_TIME), "what is invoiced keeps its"),
        (f"DELETE FROM subscription_phases WHERE {ONLY_TIME}", "what is invoiced keeps its phases"),
        (
            phase(
                "'2026-02-01Z'", "'2026-02-01Z'", "'2026-02-01T00:00Z'", "'2026-02-01T00:01Z'"
            ).replace("'2026-02-01Z'", "'2026-01-31T23:45Z'"),
            "what is invoiced keeps its phases",
        ),
        (
            moved("exact_start_time = '2026-03-01T00:01Z'", LAST),
            "nothing of a phase changes but its end",
        ),
        (
            moved("exact_anchor_time = anchor_time + interval '1 second'", LAST),
            "nothing of a phase changes but its end",
        ),
        # Seconds abut, also where usage does.
        (
            moved("exact_end_time = '2026-02-28T23:59Z'", "end_time = '2026-03-01Z'"),
            "the phases of a subscription abut from its start to its end",
        ),
        # From when on time is not invoiced moves with the period alone, and never back.
        (
            "UPDATE subscriptions SET exact_period_start = '2026-02-01T00:01Z'",
            "the second until which time is invoiced moves on with the period alone",
        ),
        (
            "UPDATE subscriptions SET exact_period_start = '2026-01-31T23:59Z'",
            "the second until which time is invoiced moves on with the period alone",
        ),
        (
            "UPDATE subscriptions SET period_start = period_end, exact_period_start = "
            "period_end + interval '15 minutes', period_end = '2026-04-01Z'",
            "ck_subscriptions_exact_period_start",
        ),
        (
            "UPDATE subscriptions SET period_start = period_end, exact_period_start = "
            "period_end + interval '0.5 s', period_end = '2026-04-01Z'",
            "ck_subscriptions_exact_period_start",
        ),
        # No second is in two invoices.
        (
            invoice("'2026-02-01Z'", "'2026-03-01Z'", "'2026-01-31T23:59Z'", "'2026-03-01T00:00Z'"),
            "ex_invoices_exact_period",
        ),
        (
            invoice("'2026-02-01Z'", "'2026-03-01Z'", "'2026-02-01T00:01Z'", "'2026-03-01T00:00Z'"),
            "an invoice bills time from where the one before it ended",
        ),
        (
            invoice("'2026-01-20Z'", "'2026-02-01Z'", "'2026-02-01T00:00Z'", "'2026-02-01T00:01Z'"),
            "ck_invoices_exact_period",
        ),
        (
            invoice("'2026-04-01Z'", "'2026-05-01Z'", "'2026-04-01Z'", "NULL"),
            "ck_invoices_exact_period",
        ),
        (
            invoice("'2026-04-01Z'", "'2026-05-01Z'", "'2026-04-01Z'", "'2026-05-01Z'", "LATE"),
            "ck_invoices_exact_period",
        ),
        (
            invoice("'2026-04-01Z'", "'2026-05-01Z'", "'2026-04-01T00:00:00.5Z'", "'2026-05-01Z'"),
            "ck_invoices_exact_period",
        ),
    ],
)
async def test_the_database_refuses_what_no_second_is(
    changed: World, statement: str, why: str
) -> None:
    with pytest.raises(DBAPIError, match=why):
        async with changed.database.transaction() as connection:
            await connection.execute(text(statement))


async def test_an_invoice_ends_with_the_second_that_the_subscription_goes_on_with(
    changed: World,
) -> None:
    later = (
        "UPDATE subscriptions SET period_start = period_end, exact_period_start = "
        "period_end + interval '1 minute', period_end = '2026-04-01Z'"
    )
    made = invoice("'2026-02-01Z'", "'2026-03-01Z'", "'2026-02-01Z'", "'2026-03-01T00:00Z'")
    with pytest.raises(DBAPIError, match="an invoice bills time from where the one before it"):
        async with changed.database.transaction() as connection:
            for statement in (later, made):
                await connection.execute(text(statement))


async def test_each_phase_has_its_second_by_which_it_is_told_from_others(changed: World) -> None:
    async with changed.database.transaction() as connection:
        rows = await connection.execute(
            text("SELECT start_time, priced_from FROM subscription_phases ORDER BY 1, 2")
        )
        found = [tuple(row) for row in rows]
    quarter = utc("2026-01-10T10:00")
    assert found == [
        (utc("2026-01-01"), utc("2026-01-01")),
        (quarter, FIRST),
        (quarter, SECOND),
        (utc("2026-03-01"), utc("2026-03-01")),
    ]
