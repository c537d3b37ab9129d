"""A service's migrations run when they have to, and Alembic is not even imported when not."""

import asyncio
import sys
from pathlib import Path

import pytest

import services
from cli.databases import connected
from services.kit.migrations import migrate, newest_revision

PACKAGES = ["accounts", "ingest", "aggregator", "invoicer", "notifier"]

MIGRATE = """
import asyncio, sys
from services.kit.migrations import migrate
asyncio.run(migrate(sys.argv[1], sys.argv[2]))
print("alembic" in sys.modules)
"""


@pytest.mark.parametrize("name", PACKAGES)
async def test_a_database_that_is_current_is_left_alone_without_alembic(
    database_url: str, name: str
) -> None:
    package = f"services.{name}"
    await migrate(database_url, package)
    again = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MIGRATE, database_url, package, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await again.communicate()
    assert again.returncode == 0
    assert output.decode().splitlines()[-1] == "False"
    async with connected(database_url) as connection:
        version = await connection.fetchval("SELECT version_num FROM alembic_version")
    assert version == newest_revision(package)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_migrations_file_begins_with_its_revision(name: str) -> None:
    [root] = services.__path__
    for file in (Path(root) / name / "migrations" / "versions").glob("*.py"):
        assert f'revision = "{file.name.partition("_")[0]}"' in file.read_text()


def test_the_newest_migration_is_the_one_that_nothing_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two that were made at the same time the one with the lower number may come second."""
    versions = tmp_path / "made_up_service" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "made_up_service" / "__init__.py").touch()
    for name, follows in (("0001_a", "None"), ("0003_b", '"0001"'), ("0002_c", '"0003"')):
        text = f'revision = "{name[:4]}"\ndown_revision = {follows}\n'
        (versions / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert newest_revision("made_up_service") == "0002"
