"""ingest on a real database, in this process."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import SecretStr

from cli.embedded import EmbeddedPostgres
from tests.conftest import migrated_database
from tests.integration.ingest.instance import Instance, running

Start = Callable[..., Awaitable[Instance]]


@pytest.fixture
async def ingest_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of ingest's migrated, empty database."""
    async with migrated_database(postgres, "services.ingest") as url:
        yield url


@pytest.fixture
async def start(ingest_url: str) -> AsyncIterator[Start]:
    """Starts an instance of ingest; keyword arguments are settings. All stop after the test."""
    async with AsyncExitStack() as stack:

        async def start_instance(**settings: Any) -> Instance:
            merged = {"database_url": SecretStr(ingest_url)} | settings
            return await stack.enter_async_context(running(**merged))

        yield start_instance


@pytest.fixture
async def ingest(start: Start) -> Instance:
    """One instance of ingest; NATS is away."""
    return await start()
