"""ingest, aggregator and what reconciles them, on real PostgreSQL and over real gRPC."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from usageflow.events.v1.events_pb2 import UsageEvent
from usageflow.ingest.v1 import ingest_pb2_grpc, reconciliation_pb2_grpc

from cli.embedded import EmbeddedPostgres
from services.aggregator.folder import Folder
from services.aggregator.reconciliation.domain import Accepted, HourKey, hour_of
from services.aggregator.reconciliation.reconciler import Reconciler
from services.aggregator.reconciliation.repair import Repair
from services.aggregator.reconciliation.source import ACCEPTED_TIMEOUT_S, IngestAccepted
from services.aggregator.watermark import IngestWatermark
from services.ingest.history import Histories
from services.ingest.reconciliation.service import Reconciliation
from services.ingest.reconciliation.servicer import ReconciliationServicer
from services.ingest.replay import Replays
from services.ingest.servicer import IngestInternalServicer
from services.kit import clock
from services.kit.database import Database, TenantKey
from services.kit.grpc_client import open_channel
from services.kit.grpc_server import GrpcServer
from services.kit.settings import ServiceSettings
from tests.conftest import migrated_database
from tests.integration.ingest.instance import NATS_AWAY, TOKEN
from tests.integration.ingest.test_ingest_grpc import Keys
from tests.integration.model.naive import Sent
from tests.integration.model.world import PACKAGES, World

# An hour that is over.
HOUR = hour_of(clock.now()) - timedelta(hours=3)


async def nothing() -> None:
    """What the hooks do unless a test says otherwise."""


class HookedAccepted(IngestAccepted):
    """Asks ingest; `before_count` and `during_replay` run around what it asks."""

    before_count: Callable[[], Awaitable[None]] = staticmethod(nothing)
    after_count: Callable[[], Awaitable[None]] = staticmethod(nothing)
    during_replay: Callable[[], Awaitable[None]] = staticmethod(nothing)

    async def count_hour(self, key: HourKey) -> Accepted:
        """With both hooks around it."""
        await self.before_count()
        found = await super().count_hour(key)
        await self.after_count()
        return found

    async def replay(self, key: HourKey) -> AsyncIterator[Sequence[UsageEvent]]:
        """The hook runs after the first events."""
        async for events in super().replay(key):
            yield events
            await self.during_replay()


@dataclass
class Setting:
    """What a test works with."""

    world: World
    database: Database
    source: HookedAccepted
    watermark: IngestWatermark
    server: GrpcServer
    told: list[str] = field(default_factory=list)

    def reconciler(self) -> Reconciler:
        """One replica's."""
        repair = Repair(
            self.database,
            self.source,
            Folder(self.database, lambda: None),
            usage_changed=lambda: self.told.append("changed"),
        )
        return Reconciler(self.database, self.source, self.watermark, repair)

    async def check(self, hour: datetime = HOUR) -> None:
        """Look at one hour of all metrics."""
        await self.reconciler().check(hour, hour + timedelta(hours=1))

    async def send(self, tenant: TenantKey, *events: Sent) -> list[bytes]:
        """Accept events; their ids. They are not delivered."""
        receipts = await self.world.record(tenant, events, clock.now())
        return [event_id for _status, event_id in receipts]

    async def forget_pending(self) -> None:
        """What a dropped row of the outbox does: ingest takes for applied what never was."""
        outbox = self.world.ingests[0].outbox
        await outbox.confirm([message.message_id for message in await outbox.pending(1_000)])

    async def sql(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement in aggregator's database, if it has any."""
        async with self.database.transaction() as connection:
            result = await connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    async def totals(self, tenant: TenantKey, metric: str = "SUM") -> tuple[int, str]:
        """Number and sum of the events that are counted of a metric."""
        [(count, amount)] = await self.sql(
            "SELECT coalesce(sum(event_count), 0), coalesce(sum(amount_sum), 0) FROM usage_buckets "
            "JOIN series USING (series_id) JOIN metrics USING (metric_id) "
            "WHERE organization_id = :organization_id AND mode = :mode AND key = :key",
            organization_id=tenant.organization_id,
            mode=tenant.mode,
            key=metric,
        )
        return int(count), f"{amount.normalize():f}"

    async def differences(self) -> list[tuple[str, int, int, bool]]:
        """(metric, accepted, counted, repaired) of all that were found, in that order."""
        rows = await self.sql(
            "SELECT metric, accepted_count, counted_count, repair_time IS NOT NULL AS repaired "
            "FROM reconciliation_differences ORDER BY difference_id"
        )
        return [tuple(row) for row in rows]


@pytest.fixture
async def setting(postgres: EmbeddedPostgres) -> AsyncIterator[Setting]:
    """Everything, with empty databases."""
    async with AsyncExitStack() as stack:
        urls = [
            await stack.enter_async_context(migrated_database(postgres, package))
            for package in PACKAGES
        ]
        world = World(*urls)
        await world.start()
        stack.push_async_callback(world.stop)
        database = Database(urls[1], pool_size=10)
        stack.push_async_callback(database.close)
        ingest = world.ingests[0]
        server = GrpcServer(
            ServiceSettings(
                database_url=SecretStr("postgresql://unused"),
                nats_url=SecretStr(NATS_AWAY),
                internal_token=SecretStr(TOKEN),
                shutdown_s=2,
            ),
            Keys(),
        )
        server.add(
            reconciliation_pb2_grpc.add_ReconciliationInternalServiceServicer_to_server,
            ReconciliationServicer(Reconciliation(ingest.database)),
            "usageflow.ingest.v1.ReconciliationInternalService",
        )
        server.add(
            ingest_pb2_grpc.add_IngestInternalServiceServicer_to_server,
            IngestInternalServicer(
                ingest.ingest, Replays(ingest.database), Histories(ingest.database)
            ),
            "usageflow.ingest.v1.IngestInternalService",
        )
        await server.start()
        stack.push_async_callback(server.stop)
        channel = open_channel(f"127.0.0.1:{server.port}")
        stack.push_async_callback(channel.close)
        token = SecretStr(TOKEN)
        source = HookedAccepted(channel, token, timeout_s=ACCEPTED_TIMEOUT_S)
        yield Setting(world, database, source, IngestWatermark(channel, token), server)
