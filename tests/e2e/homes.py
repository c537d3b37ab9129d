"""Homes with databases that are made and migrated once a session, and copied for each stack.

A start takes a quarter less that way. First starts themselves are tested where `usageflow up`
is (tests/integration/cli/test_up.py), by the demo and by the fault campaign.
"""

import asyncio
import subprocess
from pathlib import Path

from cli.databases import close_shared_databases, ensure_databases
from cli.embedded import EmbeddedPostgres
from cli.home import Home
from cli.ports import free_port
from services.kit.migrations import migrate
from tests.conftest import TEST_SETTINGS


def prepare_home(path: Path) -> None:
    """Make a home such as a first start has when the services are about to be started."""
    home = Home(path)
    with home.locked(lambda: None):
        secrets = home.load_secrets()
        log = home.logs / "postgres.log"
        server = EmbeddedPostgres(
            path / "postgres", free_port(), secrets.postgres_password, log, TEST_SETTINGS
        )
        server.prepare()
        server.start()
        try:
            asyncio.run(_make_databases(server, secrets.database_passwords))
        finally:
            server.stop()


async def _make_databases(server: EmbeddedPostgres, passwords: dict[str, str]) -> None:
    await server.ready()
    urls = await ensure_databases(server.url(), passwords)
    await close_shared_databases(server.url())
    for service, url in urls.items():
        await migrate(url, f"services.{service}")


def copy_home(prepared: Path, home: Path) -> Path:
    """Make `home` a copy of what prepare_home() has made; `home`, for whom to start there."""
    home.mkdir(exist_ok=True)
    # It keeps the owners: PostgreSQL's files belong to another user when tests run as root.
    subprocess.run(["cp", "-a", f"{prepared}/.", str(home)], check=True)
    return home
