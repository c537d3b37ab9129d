"""Subscriptions from before there were phases get the one that they have been in."""

import importlib.resources
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine

from cli.embedded import EmbeddedPostgres
from services.invoicer.phases import PhaseKind
from services.invoicer.repository.subscriptions import list_subscriptions
from services.kit.database import Database, TenantKey, sqlalchemy_url
from services.kit.migrations import migrate
from tests.conftest import empty_database
from tests.integration.invoicer.stand_ins import utc

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


def migrate_to(connection: Connection, revision: str) -> None:
    """Bring an empty database to a revision."""
    config = Config()
    folder = Path(str(importlib.resources.files(PACKAGE))) / "migrations"
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(current, _context):  # type: ignore[no-untyped-def]
        return script._upgrade_revs(revision, current)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, transaction_per_migration=True)
        with environment.begin_transaction():
            environment.run_migrations()


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of an empty database, without any migration."""
    async with empty_database(postgres) as url:
        yield url


async def test_each_subscription_gets_the_phase_that_it_has_been_in(database_url: str) -> None:
    engine = create_async_engine(sqlalchemy_url(database_url))
    async with engine.connect() as connection:
        await connection.run_sync(migrate_to, BEFORE)
        await connection.commit()
        for row in ROWS:
            await connection.execute(text(row))
        await connection.commit()
    await engine.dispose()
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
