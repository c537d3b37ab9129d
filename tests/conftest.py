"""Real servers for tests: one PostgreSQL and one NATS a session, a fresh database a test."""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from hypothesis import settings

from cli.databases import connected, make_database, make_role
from cli.embedded import EmbeddedNats, EmbeddedPostgres
from cli.home import new_secret
from cli.ports import free_port
from services.kit.migrations import migrate
from tests.tools import memory_file_system

# How long an example takes says something about the machine, not about the code.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# A test's property of this name is shown when all is over, also when it ran in a process of xdist.
TOLD_AT_THE_END = "told_at_the_end"

# Whatever tests write, PostgreSQL above all, at three times a usual run.
TEMPORARY_BYTES_MAX = 8 << 30


def pytest_configure() -> None:
    """Let processes keep their bytecode, and let tests write to memory where there is enough of it.

    PostgreSQL copies some 300 files for each test's database: 12 ms of processor time there, 25 to
    280 ms on a disk, depending on what else that has to do.
    """
    # Where Python is told to keep no bytecode, as in many an image, every process of every stack
    # compiles all of our modules: a fifth of a start's processor time (7.1 s instead of 5.6).
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    memory = memory_file_system(TEMPORARY_BYTES_MAX)
    if memory is not None:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have to tell besides that they passed, such as a seed."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, told in getattr(report, "user_properties", ()):
                if name == TOLD_AT_THE_END and report.when == "call":
                    terminalreporter.write_line(str(told))


# A test kills processes, not the machine: what was written survives that without fsync. One has
# 200 transactions open at once.
TEST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "1GB",
    "max_connections": "250",
}


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A running PostgreSQL server of this session."""
    directory = tmp_path_factory.mktemp("postgres")
    server = EmbeddedPostgres(
        directory, free_port(), new_secret(), directory / "log", TEST_SETTINGS
    )
    server.prepare()
    server.start()
    asyncio.run(server.ready())
    yield server
    server.stop()
    shutil.rmtree(directory)  # pytest would keep it for three more sessions


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of an empty database that belongs to a role of its own; dropped afterwards."""
    async with empty_database(postgres) as url:
        yield url


@asynccontextmanager
async def empty_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """What `database_url` is, for those that need several."""
    name = f"test_{secrets.token_hex(8)}"
    password = new_secret()
    async with connected(postgres.url()) as admin:
        await make_role(admin, name, password)
        await make_database(admin, name)
        yield postgres.url(name, password)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE {name}")


# By port of the server and package: a database with all of its migrations, and its role's password.
_migrated: dict[tuple[int, str], tuple[str, str]] = {}


@asynccontextmanager
async def migrated_database(postgres: EmbeddedPostgres, package: str) -> AsyncIterator[str]:
    """The URL of a database with all migrations of `package` and nothing else; dropped afterwards.

    A copy of one that was migrated once a session: that takes a tenth of the time.
    """
    async with connected(postgres.url()) as admin:
        if (postgres.port, package) not in _migrated:
            template, password = f"template_{package.rpartition('.')[2]}", new_secret()
            await make_role(admin, template, password)
            await make_database(admin, template)
            await migrate(postgres.url(template, password), package)
            _migrated[postgres.port, package] = template, password
        template, password = _migrated[postgres.port, package]
        name = f"test_{secrets.token_hex(8)}"
        await admin.execute(
            f"CREATE DATABASE {name} TEMPLATE {template} OWNER {template} STRATEGY FILE_COPY"
        )
        yield postgres.url(template, password, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    """A running NATS server of this session, with JetStream."""
    directory: Path = tmp_path_factory.mktemp("nats")
    server = EmbeddedNats(directory, free_port(), new_secret(), directory / "log")
    server.prepare()
    server.start()
    asyncio.run(server.ready())
    yield server
    server.stop()
    shutil.rmtree(directory)


@pytest.fixture
async def nats_url(nats_server: EmbeddedNats) -> str:
    """The URL of a NATS server without any stream."""
    connection = await nats.connect(nats_server.url)
    try:
        jetstream = connection.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(stream.config.name or "")
    finally:
        await connection.close()
    return nats_server.url
