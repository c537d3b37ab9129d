"""Brings a database to a migration that is not the newest, for tests of the ones behind it."""

import importlib.resources
from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def migrate_to(connection: Connection, package: str, revision: str) -> None:
    """Bring an empty database to a revision of `package`, for example "services.ingest"."""
    config = Config()
    folder = Path(str(importlib.resources.files(package))) / "migrations"
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)

    def steps(current, _context):  # type: ignore[no-untyped-def]
        return script._upgrade_revs(revision, current)

    with EnvironmentContext(config, script, fn=steps) as environment:
        environment.configure(connection=connection, transaction_per_migration=True)
        with environment.begin_transaction():
            environment.run_migrations()
