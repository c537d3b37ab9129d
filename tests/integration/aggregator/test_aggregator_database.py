"""What the database of aggregator refuses, whatever the code above it does."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.aggregator.domain import NewMetric
from services.aggregator.folder import Folder
from services.aggregator.metric_service import Metrics
from services.aggregator.tables import metadata
from services.kit.database import Database, TenantKey
from tests.integration.aggregator.sending import Event, batch

BUCKET = (
    "INSERT INTO usage_buckets SELECT series_id, bucket_start + interval '{shift}', {count}, "
    "{total}, {least}, {most}, latest_time + interval '{shift}', {event_id}, {latest} "
    "FROM usage_buckets ORDER BY series_id LIMIT 1"
)


QUOTA = (
    "INSERT INTO quotas SELECT 'quota_1', metric_id, '', 'DAY', {limit}, 'HARD', '', now(), now(), "
    "'{{}}' "
    "FROM metrics WHERE key = 'DEFINED'"
)
RESERVATION = (
    "INSERT INTO quota_reservations SELECT 'res_1', organization_id, mode, 'k', metric_id, 'u', "
    "{amount}, 'ACTIVE', now(), now() + interval '1 min', NULL, now() + interval '1 min' "
    "FROM metrics WHERE key = 'DEFINED'"
)
END = "UPDATE quota_reservations SET status = 'COMMITTED', hold_time = now(), "


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
    unique = NewMetric("USERS", aggregation="UNIQUE_COUNT", unique_by="user", percentiles=True)
    await metrics.create(tenant, unique)
    await folder.apply([batch(tenant, Event("USERS", "5", metadata={"user": "x"}))])
    async with folder._database.transaction() as connection:
        await connection.execute(text(QUOTA.format(limit=10)))
        await connection.execute(text(RESERVATION.format(amount=1)))
        statement = "UPDATE fold_state SET watermark = '2026-03-02Z', inbox_horizon = '2026-03-01Z'"
        await connection.execute(text(statement))


# statement, what PostgreSQL says of it
REFUSED = [
    ("DELETE FROM metrics", "a metric is never deleted"),
    ("UPDATE metrics SET counted_id = NULL", "counts only what was built for it"),
    (
        "UPDATE metrics SET counted_id = (SELECT metric_id FROM metrics WHERE key = 'USERS') "
        "WHERE key = 'FOUND'",
        "counts only what was built for it",
    ),
    ("UPDATE metrics SET key = 'OTHER'", "identifies a metric never changes"),
    ("UPDATE metrics SET mode = 'test'", "identifies a metric never changes"),
    ("UPDATE metrics SET create_time = now()", "identifies a metric never changes"),
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
    ("UPDATE metrics SET percentiles = true WHERE NOT defined", "kept never changes"),
    ("UPDATE metrics SET percentiles = false WHERE key = 'USERS'", "kept never changes"),
    (
        "UPDATE metrics SET defined = true, aggregation = 'UNIQUE_COUNT', unique_by = 'x' "
        "WHERE NOT defined",
        "kept never changes",
    ),
    ("UPDATE unique_values SET event_count = 0", "ck_unique_values_event_count"),
    ("UPDATE unique_values SET value_key = 'short'", "ck_unique_values_value_key"),
    ("UPDATE unique_values SET bucket_start = '2026-01-01Z'", "fk_unique_values"),
    ("INSERT INTO unique_values SELECT * FROM unique_values", "pk_unique_values"),
    ("UPDATE amount_counts SET event_count = -1", "ck_amount_counts_event_count"),
    ("UPDATE amount_counts SET amount = 'NaN'", "ck_amount_counts_amount"),
    ("UPDATE amount_counts SET amount = -1", "ck_amount_counts_amount"),
    ("UPDATE amount_counts SET bucket_start = '2026-01-01Z'", "fk_amount_counts"),
    ("INSERT INTO amount_counts SELECT * FROM amount_counts", "pk_amount_counts"),
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
    (bucket(total="-1"), "ck_usage_buckets_amounts"),
    ("UPDATE usage_buckets SET amount_max = 'Infinity'", "ck_usage_buckets_amounts"),
    ("UPDATE usage_buckets SET event_count = event_count - 9", "ck_usage_buckets_event_count"),
    (
        "INSERT INTO bucket_recounts SELECT series_id, bucket_start + interval '1 day' "
        "FROM usage_buckets",
        "fk_bucket_recounts",
    ),
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
    (QUOTA.format(limit=1), "pk_quotas"),
    (QUOTA.replace("quota_1", "quota_2").format(limit=1), "uq_quotas_metric_id_customer_id_period"),
    ("UPDATE quotas SET limit_amount = -1", "ck_quotas_limit_amount"),
    ("UPDATE quotas SET limit_amount = 'NaN'", "ck_quotas_limit_amount"),
    ("UPDATE quotas SET enforcement = 'MAYBE'", "ck_quotas_enforcement"),
    ("UPDATE quotas SET thresholds = '{1,2,3,4,5,6,7,8,9,10,11}'", "ck_quotas_thresholds"),
    ("UPDATE quotas SET customer_id = 'other'", "identifies a quota never changes"),
    (RESERVATION.replace("res_1", "res_2").format(amount=1), "mode_idempotency_key"),
    (RESERVATION.replace("'k'", "NULL").format(amount=1), "pk_quota_reservations"),
    ("UPDATE quota_reservations SET amount = 2", "reservation promises never changes"),
    ("UPDATE quota_reservations SET expire_time = now()", "reservation promises never changes"),
    ("UPDATE quota_reservations SET hold_time = now()", "ck_quota_reservations_hold_time"),
    (END + "committed_amount = NULL", "ck_quota_reservations_committed_amount"),
    (END + "committed_amount = -1", "ck_quota_reservations_committed_amount"),
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
async def test_a_reservation_ends_once(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute(text(END + "committed_amount = 1"))
    with pytest.raises(DBAPIError, match="ends once"):
        async with database.transaction() as connection:
            await connection.execute(text("UPDATE quota_reservations SET status = 'RELEASED'"))


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
