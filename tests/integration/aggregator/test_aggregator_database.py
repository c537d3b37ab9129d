"""What the database of aggregator refuses, whatever the code above it does."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.service import Metrics
from services.aggregator.tables import metadata
from services.kit.database import Database, TenantKey
from services.kit.migrations import migrate
from tests.integration.aggregator.sending import Event, batch

BUCKET = (
    "INSERT INTO usage_buckets SELECT series_id, bucket_start + interval '{shift}', {count}, "
    "{total}, {least}, {most}, latest_time + interval '{shift}', {event_id}, {latest} "
    "FROM usage_buckets LIMIT 1"
)


def bucket(**changes: str) -> str:
    """A statement that copies a bucket with something changed."""
    values = {
        "shift": "15 minutes",
        "count": "1",
        "total": "5",
        "least": "5",
        "most": "5",
        "event_id": "latest_event_id",
        "latest": "5",
    }
    return BUCKET.format(**{**values, **changes})


@pytest.fixture
async def usage(folder: Folder, metrics: Metrics, tenant: TenantKey) -> None:
    """A defined metric, one that defined itself, and a bucket of each."""
    await metrics.create(tenant, NewMetric("DEFINED", "Name", "unit", "SUM", ("model",)))
    sent = Event("DEFINED", "5", metadata={"model": "x"})
    await folder.apply([batch(tenant, sent, Event("FOUND", "5"))])
    async with folder._database.transaction() as connection:
        statement = "UPDATE fold_state SET watermark = '2026-03-02Z', inbox_horizon = '2026-03-01Z'"
        await connection.execute(text(statement))


# statement, what PostgreSQL says of it
REFUSED = [
    ("DELETE FROM metrics", "a metric is never deleted"),
    ("UPDATE metrics SET key = 'OTHER'", "identifies a metric never changes"),
    ("UPDATE metrics SET mode = 'test'", "identifies a metric never changes"),
    ("UPDATE metrics SET create_time = now()", "identifies a metric never changes"),
    ("UPDATE metrics SET unit = 'x' WHERE defined", "was given never changes"),
    ("UPDATE metrics SET aggregation = 'MAX' WHERE defined", "was given never changes"),
    ("UPDATE metrics SET dimensions = '{}' WHERE defined", "was given never changes"),
    ("UPDATE metrics SET defined = false WHERE defined", "was given never changes"),
    ("UPDATE metrics SET dimensions = '{a}' WHERE NOT defined", "ck_metrics_defined"),
    ("UPDATE metrics SET aggregation = 'MAX' WHERE NOT defined", "ck_metrics_defined"),
    (
        "UPDATE metrics SET defined = true, aggregation = 'MEDIAN' WHERE NOT defined",
        "ck_metrics_aggregation",
    ),
    (
        "UPDATE metrics SET defined = true, aggregation = 'UNIQUE_COUNT' WHERE NOT defined",
        "ck_metrics_unique_by",
    ),
    (
        "UPDATE metrics SET defined = true, dimensions = '{1,2,3,4,5,6,7,8,9}' WHERE NOT defined",
        "ck_metrics_dimensions",
    ),
    (
        "INSERT INTO metrics (organization_id, mode, key, name, unit, aggregation, "
        "dimensions, unique_by, defined, create_time) SELECT organization_id, mode, key, '', "
        "'', 'SUM', '{}', '', true, now() FROM metrics",
        "uq_metrics_organization_id_mode_key",
    ),
    ("UPDATE series SET customer_id = 'other'", "a series never changes"),
    ("UPDATE series SET dimensions = '{}'", "a series never changes"),
    ("DELETE FROM series", "fk_usage_buckets_series_id_series"),
    (
        "INSERT INTO series (metric_id, series_key, customer_id, dimensions) "
        "SELECT metric_id, series_key, 'other', '{}' FROM series",
        "uq_series_metric_id_series_key",
    ),
    (
        "INSERT INTO series (metric_id, series_key, customer_id, dimensions) "
        "SELECT metric_id, 'short', 'other', '{}' FROM series",
        "ck_series_series_key",
    ),
    (bucket(shift="7 minutes"), "ck_usage_buckets_bucket_start"),
    (bucket(shift="0 minutes"), "pk_usage_buckets"),
    (bucket(count="0"), "ck_usage_buckets_event_count"),
    (bucket(least="-1"), "ck_usage_buckets_amounts"),
    (bucket(least="6"), "ck_usage_buckets_amounts"),
    (bucket(total="4"), "ck_usage_buckets_amounts"),
    (bucket(total="'NaN'"), "ck_usage_buckets_amounts"),
    (bucket(most="'Infinity'", total="'Infinity'"), "ck_usage_buckets_amounts"),
    (bucket(latest="6"), "ck_usage_buckets_latest"),
    (bucket(event_id="'short'"), "ck_usage_buckets_latest"),
    ("UPDATE usage_buckets SET latest_time = bucket_start - interval '1 s'", "_latest"),
    ("UPDATE usage_buckets SET latest_time = bucket_start + interval '15 min'", "_latest"),
    ("INSERT INTO inbox SELECT * FROM inbox", "pk_inbox"),
    ("UPDATE inbox SET accept_time = NULL", "accept_time"),
    ("INSERT INTO customers_seen SELECT * FROM customers_seen", "pk_customers_seen"),
    ("UPDATE customers_seen SET customer_id = ''", "ck_customers_seen_customer_id"),
    ("DELETE FROM fold_state", "never deleted"),
    ("INSERT INTO fold_state VALUES (false, 1)", "ck_fold_state_only_row"),
    ("INSERT INTO fold_state VALUES (true, 1)", "pk_fold_state"),
    ("UPDATE fold_state SET definition_version = 0", "never goes back"),
    ("UPDATE fold_state SET watermark = NULL", "never goes back"),
    ("UPDATE fold_state SET inbox_horizon = '2026-02-28Z'", "never goes back"),
    ("UPDATE fold_state SET inbox_horizon = '2026-03-03Z'", "ck_fold_state_inbox_horizon"),
]


@pytest.mark.usefixtures("usage")
async def test_the_database_refuses_what_would_break_an_invariant(database: Database) -> None:
    let_through = []
    for statement, why in REFUSED:
        try:
            async with database.transaction() as connection:
                await connection.execute(text(statement))
            let_through.append((statement, "no error"))
        except DBAPIError as error:
            if why not in str(error.orig):
                let_through.append((statement, str(error.orig)))
    assert let_through == []


@pytest.mark.usefixtures("usage")
async def test_every_change_of_a_definition_is_counted(
    database: Database, metrics: Metrics, tenant: TenantKey
) -> None:
    async with database.transaction() as connection:
        query = text("SELECT definition_version FROM fold_state")
        before = (await connection.execute(query)).scalar_one()
    await metrics.create(tenant, NewMetric("FOUND", unit="things"))
    async with database.transaction() as connection:
        assert (await connection.execute(query)).scalar_one() == before + 1


async def test_the_migrations_make_the_tables_as_declared(database: Database) -> None:
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    assert differences == []


async def test_migrating_again_changes_nothing(database: Database, database_url: str) -> None:
    await migrate(database_url, "services.aggregator")
    await database.ping()
