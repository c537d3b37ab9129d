"""Runs a service's Alembic migrations when it starts; replicas take turns by an advisory lock."""

import asyncio
import importlib.resources
import zlib
from pathlib import Path

import structlog
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from services.kit.database import CONNECT_TIMEOUT_S, sqlalchemy_url

log = structlog.get_logger()

# A migration that can't get its locks gives up instead of queueing every query behind itself.
LOCK_TIMEOUT_MS = 10_000
TURN_WAIT_S = 120.0


async def migrate(url: str, package: str) -> None:
    """Bring the database at `url` to the newest of `package`'s migrations.

    `package` is for example "services.accounts"; versions stand in its migrations/versions/.
    """
    engine = create_async_engine(
        sqlalchemy_url(url), poolclass=NullPool, connect_args={"timeout": CONNECT_TIMEOUT_S}
    )
    try:
        async with asyncio.timeout(TURN_WAIT_S), engine.connect() as connection:
            lock = zlib.crc32(package.encode())
            await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": lock})
            await connection.commit()
            await connection.execute(text(f"SET lock_timeout = {LOCK_TIMEOUT_MS}"))
            await connection.commit()
            await connection.run_sync(_upgrade, package)
            await connection.commit()
            # The lock goes with the connection.
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, package: str) -> None:
    folder = Path(str(importlib.resources.files(package))) / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(revision, _context):  # type: ignore[no-untyped-def]
        return script._upgrade_revs("head", revision)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, transaction_per_migration=True)
        with environment.begin_transaction():
            environment.run_migrations()
    log.info("database_migrated", head=script.get_current_head())
