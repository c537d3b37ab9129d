"""Starts ingest in this process and speaks to it in the words of the proto."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from usageflow.ingest.v1 import ingest_pb2 as pb

from services.ingest.app import Storage, start_storing
from services.ingest.batches import BatchOutbox
from services.ingest.domain import Status, Tenant
from services.ingest.service import Ingest
from services.ingest.settings import IngestSettings
from services.ingest.voids import Voids
from services.ingest.wire import Intake
from services.kit import clock
from services.kit.database import Database
from services.kit.messaging import Messaging
from services.kit.runtime import Runtime
from tests.waiting import until

ACME = Tenant(b"acme" * 4, 1)
ACME_TEST = Tenant(ACME.organization, 2)
OTHER = Tenant(b"othr" * 4, 1)
TOKEN = "internal-token-of-32-characters-"
WAIT_S = 10.0
NATS_AWAY = "nats://127.0.0.1:1"


@dataclass
class Instance:
    """A running ingest without its gRPC server."""

    ingest: Ingest
    voids: Voids
    storage: Storage
    database: Database
    outbox: BatchOutbox

    async def record(self, *inputs: pb.EventInput, tenant: Tenant = ACME) -> list[pb.EventReceipt]:
        """What RecordEvents does."""
        intake = Intake(now_micros())
        intake.read(tenant, inputs)
        recorded = await self.ingest.record(intake.events, intake.size_bytes)
        return list(intake.answer(pb.RecordEventsResponse, recorded).receipts)

    async def statuses(self, *inputs: pb.EventInput, tenant: Tenant = ACME) -> list[Status]:
        """The statuses of `record`."""
        return [Status(receipt.status) for receipt in await self.record(*inputs, tenant=tenant)]

    async def sql(self, statement: str, **parameters: object) -> list[Any]:
        """The rows of a statement, if it has any."""
        async with self.database.transaction() as connection:
            result = await connection.execute(text(statement), parameters)
            return list(result) if result.returns_rows else []

    async def rotate(self) -> int:
        """Close the open segment and open the next one; returns the one that was closed."""
        known = await self.storage.segments.refresh()
        while not await self.storage.maintenance.rotate(known.open):
            pass  # somebody is at it
        return known.open

    async def closed_segments(self, *, filtered: bool = False, indexed: bool = False) -> list[int]:
        """The closed segments, once they have a key filter, or indexes."""
        rows: list[Any] = []

        async def kept() -> bool:
            rows[:] = await self.sql(
                "SELECT segment, key_filter IS NOT NULL AS filtered, index_time IS NOT NULL AS "
                "indexed FROM event_segments WHERE close_time IS NOT NULL ORDER BY segment"
            )
            return all(row.filtered >= filtered and row.indexed >= indexed for row in rows)

        await until("what is made of closed segments", kept, WAIT_S)
        return [row.segment for row in rows]

    async def count(self) -> int:
        """How many events are stored."""
        [(number,)] = await self.sql("SELECT count(*) FROM events")
        return int(number)


@asynccontextmanager
async def running(messaging: Messaging | None = None, **fields: Any) -> AsyncIterator[Instance]:
    """An instance with these settings; without `messaging` NATS is away."""
    settings = IngestSettings(
        **({"nats_url": SecretStr(NATS_AWAY), "internal_token": SecretStr(TOKEN)} | fields)
    )
    # Not entered, so that it leaves signals and logging as pytest has them.
    runtime = Runtime("ingest", settings)
    database = Database(settings.database_url.get_secret_value())
    runtime.on_stop("database", database.close)
    storage = start_storing(
        runtime, settings, database, messaging or Messaging(NATS_AWAY, "ingest")
    )
    ingest, voids = Ingest(database, storage.queue), Voids(database, storage.relay.wake)
    try:
        yield Instance(ingest, voids, storage, database, BatchOutbox(database))
    finally:
        await runtime.__aexit__(None, None, None)


def now_micros() -> int:
    """The time as events have it."""
    return int(clock.now().timestamp()) * 1_000_000


def event(key: str = "", *, at_micros: int | None = None, **fields: Any) -> pb.EventInput:
    """An event that is fine unless `fields` say otherwise."""
    made = pb.EventInput(**({"metric": "API_CALL", "amount": "1", "idempotency_key": key} | fields))
    if at_micros is not None:
        made.time.seconds, micros = divmod(at_micros, 1_000_000)
        made.time.nanos = micros * 1_000
    return made
