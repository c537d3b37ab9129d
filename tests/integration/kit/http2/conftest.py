"""The loop that services run on, and a server on it."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop

from tests.integration.kit.http2.serving import Peer, Served, peer, serving


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """As services have it."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as made:
        yield made


@pytest.fixture
async def client(served: Served) -> AsyncIterator[Peer]:
    async with peer(served) as connected:
        yield connected
