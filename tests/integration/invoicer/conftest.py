"""invoicer on a real database, with a real gRPC server in aggregator's place."""

from collections.abc import AsyncIterator

import grpc
import pytest
from usageflow.aggregator.v1 import aggregator_pb2_grpc

from cli.embedded import EmbeddedPostgres
from services.invoicer.event_prices import EventPricedUsage
from services.invoicer.usage import AggregatorUsage
from services.kit.database import Database
from services.kit.grpc_client import open_channel
from services.kit.metrics import AggregatorMetrics
from tests.conftest import migrated_database
from tests.integration.invoicer.paying import Paying, paying_world
from tests.integration.invoicer.stand_ins import (
    TOKEN,
    Clock,
    StandInAggregator,
    World,
    new_tenant,
    utc,
)

NOW = utc("2026-01-15T12:00")


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of invoicer's migrated, empty database."""
    async with migrated_database(postgres, "services.invoicer") as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The migrated database of invoicer."""
    database = Database(database_url, pool_size=10)
    yield database
    await database.close()


@pytest.fixture
async def aggregator() -> StandInAggregator:
    """What usage there is."""
    return StandInAggregator(NOW)


@pytest.fixture
async def aggregator_address(aggregator: StandInAggregator) -> AsyncIterator[str]:
    """Where it answers."""
    server = grpc.aio.server()
    aggregator_pb2_grpc.add_AggregatorInternalServiceServicer_to_server(aggregator, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest.fixture
async def world(
    database: Database, aggregator: StandInAggregator, aggregator_address: str
) -> AsyncIterator[World]:
    """One invoicer, at noon of 15 January 2026."""
    async with open_channel(aggregator_address) as channel:
        usage = EventPricedUsage(AggregatorUsage(channel, TOKEN, timeout_s=5), aggregator)
        metrics = AggregatorMetrics(channel, TOKEN, timeout_s=5)
        yield World(database, Clock(NOW), aggregator, usage, metrics, new_tenant())


@pytest.fixture
async def paying(world: World) -> AsyncIterator[Paying]:
    """January is invoiced, and to be collected."""
    async with paying_world(world) as paying:
        yield paying
