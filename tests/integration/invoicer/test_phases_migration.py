"""What subscriptions from before had is told in the words of now: phases, and seconds."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from cli.embedded import EmbeddedPostgres
from services.invoicer.periods import BillingAnchor
from services.invoicer.phases import PhaseKind
from services.invoicer.repository.subscriptions import list_subscriptions
from services.kit.database import Database, TenantKey, sqlalchemy_url
from services.kit.migrations import migrate
from tests.conftest import empty_database
from tests.integration.invoicer.stand_ins import utc
from tests.migrating import migrate_to

PACKAGE = "services.invoicer"
BEFORE = "0013"
ORGANIZATION = "org_" + "1" * 32
_SUBSCRIPTION = (
    "INSERT INTO subscriptions (organization_id, mode, id, customer_id, plan_id, plan_version, "
    "status, billing_anchor, billing_period, time_zone, start_time, period_start, period_end, "
    "cancel_time, create_time) VALUES "
    f"('{ORGANIZATION}', 'test', '{{}}', 'c', 'plan_1', 1, '{{}}', 'CALENDAR', 'MONTHLY', 'UTC', "
    "'2026-01-01Z', {}, {}, {}, '2026-01-01Z')"
)
ROWS = [
    f"INSERT INTO customers VALUES ('{ORGANIZATION}', 'test', 'c', '', '', 'UTC', NULL, '', now())",
    f"INSERT INTO plans VALUES ('{ORGANIZATION}', 'test', 'plan_1', 1)",
    "INSERT INTO plan_versions (organization_id, mode, plan_id, version, name, currency, "
    "base_price, billing_period, metrics_count, create_time) VALUES "
    f"('{ORGANIZATION}', 'test', 'plan_1', 1, 'P', 'USD', 1, 'MONTHLY', 0, now())",
    _SUBSCRIPTION.format("sub_1", "ACTIVE", "'2026-02-01Z'", "'2026-03-01Z'", "NULL"),
    _SUBSCRIPTION.format("sub_2", "CANCELLED", "NULL", "NULL", "'2026-02-01Z'"),
    # It never began.
    _SUBSCRIPTION.format("sub_3", "CANCELLED", "NULL", "NULL", "'2026-01-01Z'"),
]


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of an empty database, without any migration."""
    async with empty_database(postgres) as url:
        yield url


PHASE = (
    "INSERT INTO subscription_phases "
    "(organization_id, mode, subscription_id, start_time, end_time, "
    "exact_start_time, exact_end_time, kind, plan_id, plan_version, billing_period, anchor_time, "
    "quantity, create_time) VALUES "
    f"('{ORGANIZATION}', 'test', '{{}}', {{}}, {{}}, {{}}, {{}}, 'BILLED', 'plan_1', 1, 'MONTHLY', "
    "'2026-01-10T10:00Z', {}, now())"
)
BY_THE_SECOND = [
    *ROWS[:3],
    *(
        _SUBSCRIPTION.format(name, "ACTIVE", "'2026-01-10T10:00Z'", "'2026-01-20T10:00Z'", "NULL")
        .replace("'2026-01-01Z', '2026-01-10", "'2026-01-10T10:00Z', '2026-01-10")
        .replace("'CALENDAR'", f"'{anchor}'")
        for name, anchor in (("sub_1", "CALENDAR"), ("sub_2", "ANNIVERSARY"))
    ),
    *(
        PHASE.format(name, *times, quantity)
        for name in ("sub_1", "sub_2")
        for *times, quantity in (
            ("'2026-01-10T10:00Z'", "'2026-01-20T10:00Z'", "'2026-01-10T10:07:31Z'",
             "'2026-01-20T10:02:10Z'", 1),
            ("'2026-01-20T10:00Z'", "NULL", "'2026-01-20T10:02:10Z'", "NULL", 2),
        )
    ),
    "UPDATE subscriptions SET period_start = period_end, period_end = '2026-02-01Z'",
]  # fmt: skip


async def fill(database_url: str, revision: str, rows: list[str]) -> None:
    """A database of a revision, with rows."""
    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.connect() as connection:
        await connection.run_sync(migrate_to, PACKAGE, revision)
        await connection.commit()
        for row in rows:
            await connection.execute(text(row))
        await connection.commit()
    await engine.dispose()


async def test_each_subscription_gets_the_phase_that_it_has_been_in(database_url: str) -> None:
    await fill(database_url, BEFORE, ROWS)
    await migrate(database_url, PACKAGE)
    database = Database(database_url, pool_size=1)
    async with database.transaction() as connection:
        found = await list_subscriptions(
            connection, TenantKey(ORGANIZATION, "test"), customer_id="", before_id=None, limit=9
        )
    await database.close()
    never, ended, running = found
    assert never.phases == ()
    (phase,) = ended.phases
    assert (phase.start_time, phase.end_time) == (utc("2026-01-01"), utc("2026-02-01"))
    (phase,) = running.phases
    assert (phase.kind, phase.end_time, phase.quantity) == (PhaseKind.BILLED, None, 1)
    assert (phase.plan_id, phase.anchor_time) == ("plan_1", utc("2026-01-01"))
    assert running.part_from(utc("2026-02-01")) == running.period


async def test_what_is_invoiced_to_a_second_and_what_counts_as_a_first_period_stay_so(
    database_url: str,
) -> None:
    await fill(database_url, "0026", BY_THE_SECOND)
    await migrate(database_url, PACKAGE)
    database = Database(database_url, pool_size=1)
    async with database.transaction() as connection:
        found = await list_subscriptions(
            connection, TenantKey(ORGANIZATION, "test"), customer_id="", before_id=None, limit=9
        )
    await database.close()
    for each in found:
        assert each.exact_period_start == utc("2026-01-20T10:02:10")
        assert each.period is not None
        assert each.exact(each.period).start == each.exact_period_start
        second = utc("2026-01-10T10:07:31")
        # On an anniversary the first period was a share of one that begins on the quarter.
        anchored = second if each.billing_anchor is BillingAnchor.CALENDAR else None
        assert {phase.exact_anchor_time for phase in each.phases} == {anchored}
        assert each.phases[0].priced_from == second
