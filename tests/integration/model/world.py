"""Two ingests and two aggregators in this process, on real PostgreSQL.

NATS's place is taken by whoever uses this: it takes messages out of ingest's outbox and hands them
to an aggregator, when, how often and in whatever order it likes.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from datetime import datetime, timedelta
from fractions import Fraction
from uuid import UUID, uuid4

from pydantic import SecretStr
from sqlalchemy import text
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent
from usageflow.ingest.v1 import ingest_pb2 as pb

from services.aggregator import void_repository
from services.aggregator.domain import UNIQUE_COUNT, NewMetric
from services.aggregator.fold import rows_of
from services.aggregator.folder import Folder
from services.aggregator.metric_repository import MetricKey
from services.aggregator.metric_service import Metrics
from services.aggregator.questions import UsageQuestion
from services.aggregator.rebuilds.domain import MetricChange
from services.aggregator.rebuilds.rebuilder import Rebuilder
from services.aggregator.rebuilds.source import HistoryBatch, HistoryPart
from services.aggregator.recounter import Recounter
from services.aggregator.roller import Roller
from services.aggregator.spans import block_start
from services.aggregator.token_wait import TokenWait
from services.aggregator.usage_service import UsageAnswers
from services.ingest.domain import Status, Tenant
from services.ingest.history import Histories, HistoryCursor, HistoryFilter
from services.ingest.replay import ReplayFilter, Replays
from services.ingest.voids import VoidStatus
from services.ingest.wire import Intake
from services.kit.auth import MODE_NAMES, MODE_NUMBERS
from services.kit.database import Database, TenantKey
from services.kit.errors import NotFoundError
from tests.integration.aggregator.conftest import TOKEN_WAIT_S, SetWatermark
from tests.integration.aggregator.rolled import rollup_differences
from tests.integration.aggregator.sending import EPOCH
from tests.integration.ingest.instance import Instance, running
from tests.integration.model.naive import KINDS, Asked, Rows, Sent

REPLICAS = 2
# The property whose values UNIQUE_COUNT counts.
UNIQUE_BY = "amount"
BATCHES_MAX = 1_000
MICROS_PER_SECOND = 1_000_000
# A history is gone on with after so many.
HISTORY_EVENTS_MAX = 3
RECOUNT_POLL_S = 0.05
SETTLE_S_MAX = 20.0

Receipt = tuple[Status, bytes]


def micros(time: datetime) -> int:
    """As events have it."""
    return round((time - EPOCH).total_seconds() * MICROS_PER_SECOND)


def event_id_of(text: str) -> bytes:
    """The bytes of "evt_..."; none of ""."""
    return bytes.fromhex(text.removeprefix("evt_"))


# Whose databases a World takes.
PACKAGES = ("services.ingest", "services.aggregator")


class KilledError(Exception):
    """As good as kill -9 of aggregator."""


class World:
    """start() it, stop() it; everything happens in the loop that did."""

    def __init__(self, ingest_url: str, aggregator_url: str) -> None:
        """The URLs are those of databases with all migrations of PACKAGES, in that order."""
        self._ingest_url = ingest_url
        self._aggregator_url = aggregator_url
        self._stops = [AsyncExitStack() for _ in range(REPLICAS)]
        self.ingests: list[Instance] = []
        self.folders: list[Folder] = []

    async def start(self) -> None:
        """Start everything."""
        self._database = Database(self._aggregator_url)
        watermark = SetWatermark()
        waits = TokenWait(self._database, watermark, TOKEN_WAIT_S)
        self._answers = UsageAnswers(self._database, watermark, waits, self)
        self._metrics = Metrics(self._database)
        self.ingests = [await self._start_ingest(number) for number in range(REPLICAS)]
        self.restart_aggregators()

    async def stop(self) -> None:
        """Stop everything."""
        for stop in self._stops:
            await stop.aclose()
        await self._database.close()

    async def _start_ingest(self, number: int) -> Instance:
        instance = running(database_url=SecretStr(self._ingest_url))
        return await self._stops[number].enter_async_context(instance)

    async def restart_ingest(self, number: int) -> None:
        """Stop one of them in whatever it is doing, and start it anew."""
        await self._stops[number].aclose()
        self.ingests[number] = await self._start_ingest(number)

    def restart_aggregators(self) -> None:
        """Forget all that they remember outside their database."""
        self.folders = [Folder(self._database, lambda: None) for _ in range(REPLICAS)]
        self._recounter = Recounter(self._database, self)
        self._rebuilders = [
            Rebuilder(self._database, self, folder, lease=timedelta(0), step_events=1)
            for folder in self.folders
        ]

    async def new_tenant(self, kinds: Collection[str] = KINDS) -> TenantKey:
        """An organization with a metric of each kind, called as it."""
        tenant = TenantKey(f"org_{uuid4().hex}", "live")
        for kind in kinds:
            await self.define(tenant, kind)
        return tenant

    async def define(self, tenant: TenantKey, kind: str) -> None:
        """Define the metric that is called as a kind."""
        unique_by = UNIQUE_BY if kind == UNIQUE_COUNT else ""
        await self._metrics.create(tenant, NewMetric(kind, aggregation=kind, unique_by=unique_by))

    async def split(self, tenant: TenantKey, kind: str, dimensions: Sequence[str]) -> None:
        """Give a metric dimensions, which changes no figure."""
        await self._metrics.update(tenant, kind, MetricChange(dimensions=tuple(dimensions)))

    async def built(self, tenant: TenantKey, kind: str) -> bool:
        """Whether the metric is what it was defined as."""
        try:
            metric = await self._metrics.get(tenant, kind)
        except NotFoundError:
            return False
        return metric.defined

    async def build(self, replica: int, parts_max: int | None) -> bool:
        """Go on with a rebuild, which is killed after some parts; whether there was one."""
        self._parts_left = parts_max
        with suppress(KilledError):
            return await self._rebuilders[replica].round()
        return True

    async def delete_left_over(self) -> None:
        """What no metric counts by any more."""
        while await self._rebuilders[0].delete_left_over(timedelta(0)):
            pass

    async def history(
        self, metric: MetricKey, cursor: str, *, voids: bool
    ) -> AsyncIterator[HistoryPart]:
        """The rebuilder's HistorySource: what ReplayHistory answers, a few events at a time."""
        wanted = HistoryFilter(_of_ingest(metric.tenant), metric.key, voids)
        answer = Histories(self.ingests[0].database, HISTORY_EVENTS_MAX).replay(
            wanted, HistoryCursor.decode(cursor)
        )
        async with aclosing(answer) as parts:
            async for part in parts:
                if self._parts_left is not None:
                    if not self._parts_left:
                        raise KilledError
                    self._parts_left -= 1
                batches = [
                    HistoryBatch(str(each.batch_id), each.accept_time, each.events)
                    for each in part.batches
                ]
                yield HistoryPart(batches, part.next_cursor)

    async def record(
        self, tenant: TenantKey, events: Sequence[Sent], now: datetime, replica: int = 0
    ) -> list[Receipt]:
        """What RecordEvents does at the instant `now`: status and event id of each."""
        intake = Intake(micros(now))
        intake.read(_of_ingest(tenant), [_input(sent) for sent in events])
        ingest = self.ingests[replica].ingest
        recorded = await ingest.record(intake.events, intake.size_bytes)
        answer = intake.answer(pb.RecordEventsResponse, recorded)
        return [
            (Status(receipt.status), event_id_of(receipt.event_id)) for receipt in answer.receipts
        ]

    async def void(
        self, tenant: TenantKey, event_ids: Sequence[bytes], replica: int = 0
    ) -> list[VoidStatus]:
        """What VoidEvents does."""
        texts = [f"evt_{event_id.hex()}" for event_id in event_ids]
        voids = self.ingests[replica].voids
        receipts, _ = await voids.void(_of_ingest(tenant), texts, "a test", key_id="key_1")
        return [receipt.status for receipt in receipts]

    async def pending(self) -> list[EventBatch]:
        """The messages that ingest would send now."""
        outbox = self.ingests[0].outbox
        found: dict[str, EventBatch] = {}
        wanted = [message.message_id for message in await outbox.pending(BATCHES_MAX)]
        # load() may leave some out.
        while missing := [batch_id for batch_id in wanted if batch_id not in found]:
            for message in await outbox.load(missing):
                found[message.message_id] = EventBatch.FromString(message.payload)
        return list(found.values())

    async def deliver(self, batches: Sequence[EventBatch], replica: int = 0) -> None:
        """Hand messages to an aggregator, which counts what it has not counted."""
        await self.folders[replica].apply(batches)

    async def confirm(self) -> None:
        """What the relay does: ask the inbox, and tell ingest what has been counted."""
        outbox = self.ingests[0].outbox
        pending = {message.message_id for message in await outbox.pending(BATCHES_MAX)}
        async with self._database.transaction() as connection:
            rows = await connection.execute(text("SELECT message_id FROM inbox"))
            counted = pending & set(rows.scalars())
        if counted:
            await outbox.confirm(sorted(counted))

    async def settle(self) -> None:
        """Deliver until nothing is left, and count anew what has to be; AssertionError when that
        does not come to an end.
        """
        try:
            async with asyncio.timeout(SETTLE_S_MAX):
                await self._settle()
        except TimeoutError:
            pending = [message.batch_id for message in await self.pending()]
            async with self._database.transaction() as connection:
                recounts = (await connection.execute(text("SELECT * FROM bucket_recounts"))).all()
            left = f"pending: {pending}, recounts: {recounts}"
            raise AssertionError(f"not settled after {SETTLE_S_MAX:.0f} s, {left}") from None

    async def _settle(self) -> None:
        while batches := await self.pending():
            await self.deliver(batches)
            await self.confirm()
        while await self._recounts_left():
            if not await self.recount():
                await asyncio.sleep(RECOUNT_POLL_S)  # one that had to give up begins anew soon

    async def recount(self) -> int:
        """Count anew what voids have marked, as far as it is due; how many buckets were tried."""
        return await self._recounter.round()

    async def roll_up(self, until: datetime) -> None:
        """Roll up all that has ended by then."""
        await Roller(self._database).roll_up(block_start(until))

    async def assert_rolled_up(self) -> None:
        """What was rolled up is what the buckets come to."""
        assert await rollup_differences(self._database) == []

    async def _recounts_left(self) -> int:
        async with self._database.transaction() as connection:
            return await void_repository.count_recounts(connection)

    async def stored_ids(self, tenant: TenantKey) -> list[bytes]:
        """The ids of all events that ingest has stored for a tenant."""
        rows = await self.ingests[0].sql(
            "SELECT event_id FROM events WHERE organization_id = :id AND mode = :mode",
            id=UUID(bytes=_of_ingest(tenant).organization),
            mode=_of_ingest(tenant).mode,
        )
        return [event_id.bytes for (event_id,) in rows]

    async def replay(
        self, tenant: TenantKey, metric: str, customer_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[UsageEvent]]:
        """The recounter's ReplaySource: what ReplayEvents answers."""
        wanted = ReplayFilter(_of_ingest(tenant), metric, customer_id, start, end)
        async for events in Replays(self.ingests[0].database).replay(wanted):
            yield events

    async def usage(self, tenant: TenantKey, asked: Asked) -> Rows:
        """What aggregator answers, without the figures of windows in which nothing happened."""
        question = UsageQuestion(
            asked.metric,
            customer_id=asked.customer_id,
            start=asked.start,
            end=asked.end,
            window=asked.window,
            group_by=("customerId",) if asked.by_customer else (),
        )
        usage = await self._answers.query(tenant, question)
        return {
            (row.start, row.group.get("customerId", "")): Fraction(row.value) for row in usage.rows
        }

    async def crash_while_recording(
        self, tenant: TenantKey, events: Sequence[Sent], now: datetime, replica: int, delay_s: float
    ) -> None:
        """Send events to an ingest that is stopped in the middle; nobody learns what became of
        them.
        """
        call = asyncio.create_task(self.record(tenant, events, now, replica))
        await asyncio.sleep(delay_s)
        await self.restart_ingest(replica)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


def _of_ingest(tenant: TenantKey) -> Tenant:
    return Tenant.of(tenant.organization_id, MODE_NUMBERS[tenant.mode])


def _input(sent: Sent) -> pb.EventInput:
    made = pb.EventInput(
        metric=sent.metric,
        amount=sent.amount,
        customer_id=sent.customer_id,
        idempotency_key=sent.key,
        metadata_json=json.dumps({UNIQUE_BY: str(Fraction(sent.amount))}),
    )
    if sent.time is not None:
        made.time.FromDatetime(sent.time)
    return made


def ids_in(batch: EventBatch, tenant: TenantKey) -> tuple[set[bytes], set[bytes]]:
    """The tenant's events that a message counts, and those that it takes out."""
    events: set[bytes] = set()
    voided: set[bytes] = set()
    for part in batch.tenants:
        if (part.organization_id, MODE_NAMES[part.mode]) == tenant:
            events |= {row.event_id for row in rows_of(part.columns)}
            voided |= {event.event_id for event in part.voided_events}
    return events, voided
