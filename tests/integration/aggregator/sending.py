"""Batches of events as ingest sends them, and questions asked in one line."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import text
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent

from services.aggregator.questions import UsageQuestion
from services.aggregator.usage_service import UsageAnswers
from services.kit import clock
from services.kit.auth import MODE_NUMBERS
from services.kit.database import Database, TenantKey
from tests.columns import columns_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc(text: str) -> datetime:
    """ "2026-03-01T05:00" as a time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def new_tenant(mode: str = "live") -> TenantKey:
    """An organization that nobody has used."""
    return TenantKey(f"org_{uuid4().hex}", mode)


@dataclass(frozen=True)
class Event:
    """An event; `time` as in utc()."""

    metric: str
    amount: str = "1"
    customer_id: str = "user_1"
    time: str | datetime = "2026-03-02T10:00"
    metadata: dict[str, object] = field(default_factory=dict)
    event_id: bytes = b""

    @property
    def at(self) -> datetime:
        """When it happened."""
        return self.time if isinstance(self.time, datetime) else utc(self.time)

    def message(self) -> UsageEvent:
        """As it travels."""
        return UsageEvent(
            event_id=self.event_id or uuid4().bytes,
            metric=self.metric,
            amount=self.amount,
            customer_id=self.customer_id,
            time_unix_micros=(self.at - EPOCH) // timedelta(microseconds=1),
            metadata_json=json.dumps(self.metadata) if self.metadata else "",
        )


def batch(tenant: TenantKey, *events: Event, accept_time: datetime | None = None) -> EventBatch:
    """One batch of one organization and mode."""
    return mixed_batch({tenant: events}, accept_time=accept_time)


def mixed_batch(
    tenants: dict[TenantKey, Sequence[Event]], *, accept_time: datetime | None = None
) -> EventBatch:
    """One batch of several organizations and modes."""
    made = EventBatch(batch_id=str(uuid4()))
    made.accept_time.FromDatetime(accept_time or clock.now())
    for tenant, events in tenants.items():
        made.tenants.add(
            organization_id=tenant.organization_id,
            mode=MODE_NUMBERS[tenant.mode],
            columns=columns_of([event.message() for event in events]),
        )
    return made


def question(
    metric: str, start: str = "2026-03-01", end: str = "2026-04-01", **more: object
) -> UsageQuestion:
    """A question about March 2026."""
    return UsageQuestion(metric, start=utc(start), end=utc(end), **more)  # type: ignore[arg-type]


async def total(answers: UsageAnswers, tenant: TenantKey, metric: str, **more: object) -> Decimal:
    """The figure of one metric in March 2026."""
    usage = await answers.query(tenant, question(metric, **more))  # type: ignore[arg-type]
    [row] = usage.rows
    return row.value


async def rows(
    answers: UsageAnswers, tenant: TenantKey, asked: UsageQuestion
) -> list[tuple[str, tuple[str, ...], str]]:
    """(start, group values, figure) of every row."""
    usage = await answers.query(tenant, asked)
    return [
        (f"{row.start:%Y-%m-%dT%H:%M}", tuple(row.group.values()), f"{row.value:f}")
        for row in usage.rows
    ]


def tokens(*entries: tuple[str, str, str]) -> Iterable[Event]:
    """AI_TOKEN events from (amount, model, region)."""
    for amount, model, region in entries:
        metadata = {"model": model, "region": region}
        yield Event("AI_TOKEN", amount, metadata={k: v for k, v in metadata.items() if v})


async def somebody_waits(database: Database) -> None:
    """Until a transaction waits for a lock."""
    async with asyncio.timeout(10):
        while True:
            async with database.transaction() as connection:
                query = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
                if (await connection.execute(query)).scalar_one():
                    return
