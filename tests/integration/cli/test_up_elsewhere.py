"""`usageflow up` with the user's own PostgreSQL and NATS."""

from pathlib import Path

from cli.databases import PREFIX, connected
from cli.embedded import EmbeddedNats, EmbeddedPostgres
from cli.home import SERVICES
from cli.stack import running_stack


async def drop_everything(admin_url: str) -> None:
    """Leave the shared test server as it was."""
    async with connected(admin_url) as admin:
        for service in SERVICES:
            await admin.execute(f"DROP DATABASE IF EXISTS {PREFIX}{service} WITH (FORCE)")
            await admin.execute(f"DROP ROLE IF EXISTS {PREFIX}{service}")


async def test_servers_that_are_given_are_used(
    tmp_path: Path, postgres: EmbeddedPostgres, nats_server: EmbeddedNats, nats_url: str
) -> None:
    """Databases are made there, and nothing is embedded."""
    environ = {"USAGEFLOW_POSTGRES_URL": postgres.url(), "USAGEFLOW_NATS_URL": nats_url}
    try:
        with running_stack(tmp_path, environ=environ) as connection:
            assert connection.nats == nats_server.url
            assert not {"postgres", "nats"} & set(connection.pids)
            assert not (tmp_path / "postgres").exists()
            async with connected(postgres.url()) as admin:
                rows = await admin.fetch("SELECT datname FROM pg_database")
        assert {PREFIX + service for service in SERVICES} <= {row["datname"] for row in rows}
    finally:
        await drop_everything(postgres.url())
