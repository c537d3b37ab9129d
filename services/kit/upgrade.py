"""Runs Alembic; a module of its own because importing that takes 11 MB, and is seldom needed."""

import importlib.resources
from pathlib import Path

import structlog
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

log = structlog.get_logger()


def upgrade(connection: Connection, package: str) -> None:
    """Bring the database to the newest of the package's migrations."""
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
