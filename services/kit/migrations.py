"""Runs a service's Alembic migrations when it starts; replicas take turns by an advisory lock."""

import asyncio
import importlib.resources
import re
import zlib

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from services.kit.database import CONNECT_TIMEOUT_S, sqlalchemy_url

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
            if not await _is_current(connection, package):
                from services.kit.upgrade import upgrade  # see there why not above

                await connection.run_sync(upgrade, package)
            await connection.commit()
            # The lock goes with the connection.
    finally:
        await engine.dispose()


async def _is_current(connection: AsyncConnection, package: str) -> bool:
    """Whether the newest migration was the last that was run."""
    found = await connection.scalar(text("SELECT to_regclass('alembic_version')"))
    if found is None:
        return False
    revision = await connection.scalar(text("SELECT version_num FROM alembic_version"))
    return bool(revision == newest_revision(package))


def newest_revision(package: str) -> str:
    """The migration that no other one follows; a file's name begins with its revision.

    Read from the files, so that Alembic need not be asked. It need not have the highest number: of
    two that are made at the same time either may come first.
    """
    versions = importlib.resources.files(package) / "migrations" / "versions"
    files = [file for file in versions.iterdir() if file.name.endswith(".py")]
    followed = {_find_followed(file.read_text()) for file in files}
    (newest,) = {file.name.partition("_")[0] for file in files} - followed
    return newest


def _find_followed(source: str) -> str:
    """The revision that a migration comes after; "": it is the first."""
    match = re.search(r'^down_revision = "(\w+)"$', source, re.MULTILINE)
    return match[1] if match else ""
