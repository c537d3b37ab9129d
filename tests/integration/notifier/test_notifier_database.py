"""What the database of notifier refuses, whatever the code above it does."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.kit.database import Database
from services.kit.migrations import migrate
from services.notifier.tables import metadata

ORGANIZATION = "org_" + "a" * 32
ENDPOINT = "whe_" + "1" * 32
DELIVERY = "whd_" + "2" * 32
ROWS = (
    f"INSERT INTO endpoints VALUES ('{ENDPOINT}', '{ORGANIZATION}', 'test', 'https://example.com',"
    " '{}', '', true, now())",
    "INSERT INTO endpoint_secrets (endpoint_id, key, create_time)"
    f" VALUES ('{ENDPOINT}', decode(repeat('00', 32), 'hex'), now())",
    f"INSERT INTO webhook_events VALUES ('{ORGANIZATION}', 'test', 'whevt_1', 'invoice.paid',"
    " now(), '{}')",
    f"INSERT INTO deliveries VALUES ('{DELIVERY}', '{ORGANIZATION}', 'test', 'whevt_1',"
    f" '{ENDPOINT}', 'pending', 1, 1, now(), NULL, now())",
    f"INSERT INTO delivery_attempts VALUES ('{DELIVERY}', 1, now(), 5, 500, 'http_status', '')",
)


@pytest.fixture
async def filled(database: Database) -> Database:
    """One endpoint, secret, event, delivery and attempt."""
    async with database.transaction() as connection:
        for statement in ROWS:
            await connection.execute(text(statement))
    return database


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE webhook_events SET body = '[]'", "a row of webhook_events never changes"),
        ("UPDATE webhook_events SET type = 'x'", "a row of webhook_events never changes"),
        ("UPDATE delivery_attempts SET error = ''", "a row of delivery_attempts never changes"),
        ("DELETE FROM webhook_events", "fk_deliveries_event"),
        ("DELETE FROM endpoints", "fk_"),
        ("UPDATE deliveries SET status = 'succeeded'", "ck_deliveries_next_attempt_time"),
        ("UPDATE deliveries SET next_attempt_time = NULL", "ck_deliveries_next_attempt_time"),
        ("UPDATE deliveries SET status = 'lost'", "ck_deliveries"),
        (
            "UPDATE deliveries SET status = 'failed', next_attempt_time = NULL,"
            " lease_until = now()",
            "ck_deliveries_lease_until",
        ),
        ("UPDATE deliveries SET attempt_count = -1", "ck_deliveries_counts"),
        ("UPDATE deliveries SET mode = 'live'", "fk_deliveries"),
        ("UPDATE deliveries SET organization_id = 'org_' || md5('x')", "fk_deliveries"),
        (
            "INSERT INTO deliveries SELECT 'whd_' || md5('x'), organization_id, mode, event_id,"
            " endpoint_id, status, 0, 0, next_attempt_time, NULL, now() FROM deliveries",
            "uq_deliveries_event_id_endpoint_id",
        ),
        (
            "INSERT INTO endpoint_secrets (endpoint_id, key, create_time)"
            " SELECT endpoint_id, key, now() FROM endpoint_secrets",
            "ix_endpoint_secrets_current",
        ),
        ("UPDATE endpoint_secrets SET key = 'short'", "ck_endpoint_secrets_key"),
        ("UPDATE endpoint_secrets SET sealed = 'both'", "ck_endpoint_secrets_material"),
        ("UPDATE endpoint_secrets SET kind = 'v2'", "ck_endpoint_secrets"),
        ("UPDATE endpoint_secrets SET kind = 'v1a'", "ck_endpoint_secrets_public_key"),
        ("UPDATE endpoints SET enabled = false", "ck_endpoints_enabled"),
        ("UPDATE endpoints SET disabled_reason = 'gone'", "ck_endpoints_enabled"),
        ("UPDATE endpoints SET disabled_reason = 'whim'", "ck_endpoints_"),
        ("UPDATE endpoints SET rate_limit = -1", "ck_endpoints_rate_limit"),
        ("UPDATE endpoints SET throttle_step = 1", "ck_endpoints_throttle"),
        ("UPDATE endpoints SET url = 'file:///etc/passwd'", "ck_endpoints_url"),
        ("UPDATE endpoints SET mode = 'demo'", "ck_endpoints_mode"),
        (
            f"INSERT INTO delivery_attempts VALUES ('{DELIVERY}', 1, now(), 5, 200, '', '')",
            "pk_delivery_attempts",
        ),
        (
            f"INSERT INTO delivery_attempts VALUES ('{DELIVERY}', 2, now(), 5, 0, 'oops', '')",
            "ck_delivery_attempts_error",
        ),
        (
            f"INSERT INTO delivery_attempts VALUES ('{DELIVERY}', 2, now(), 5, 200, '',"
            " decode(repeat('00', 16385), 'hex'))",
            "ck_delivery_attempts_response_body",
        ),
    ],
)
async def test_the_database_refuses(filled: Database, statement: str, why: str) -> None:
    with pytest.raises(DBAPIError, match=why):
        async with filled.transaction() as connection:
            await connection.execute(text(statement))


async def test_the_migrations_make_the_tables_as_declared(database: Database) -> None:
    async with database.engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    assert differences == []


async def test_migrating_again_changes_nothing(database: Database, database_url: str) -> None:
    await migrate(database_url, "services.notifier")
    async with database.transaction() as connection:
        versions = await connection.execute(text("SELECT version_num FROM alembic_version"))
        assert versions.scalars().all() == ["0005"]


async def test_an_error_of_sql_does_not_show_what_was_to_be_written(filled: Database) -> None:
    with pytest.raises(DBAPIError) as refused:
        async with filled.transaction() as connection:
            await connection.execute(
                text("UPDATE endpoint_secrets SET key = :key"), {"key": b"private"}
            )
    assert "private" not in str(refused.value)
