"""Stands in for ingest: what was accepted, what is void, and what has been sent."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from uuid import uuid4

from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent

from services.aggregator.metric_repository import MetricKey
from services.aggregator.rebuilds.source import HistoryBatch, HistoryPart
from services.kit import clock
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from tests.integration.aggregator.sending import EPOCH, Event


async def nothing() -> None:
    """What `before` and `during` do unless a test says otherwise."""


def micros(time: datetime) -> int:
    """As events have it."""
    return (time - EPOCH) // timedelta(microseconds=1)


class Ledger:
    """One tenant's events. A ReplaySource and a HistorySource: `before` and `during` run around its
    snapshots, `between` before each part of a history.
    """

    def __init__(self, tenant: TenantKey) -> None:
        self.tenant = tenant
        self.events: list[UsageEvent] = []
        self.void: set[bytes] = set()
        self.replays = 0
        self.batches: list[EventBatch] = []
        self.part_events = 2
        self.between: Callable[[], Awaitable[None]] = nothing
        self.before: Callable[[], Awaitable[None]] = nothing
        self.during: Callable[[], Awaitable[None]] = nothing

    def accept(self, *events: Event) -> EventBatch:
        """Store events; the batch that is to be sent."""
        messages = [event.message() for event in events]
        self.events += messages
        return self._batch(events=messages)

    def take_back(self, *events: UsageEvent) -> EventBatch:
        """Void events; the batch that is to be sent once theirs were applied."""
        self.void |= {event.event_id for event in events}
        return self._batch(voided_events=events)

    def _batch(self, **fields: Sequence[UsageEvent]) -> EventBatch:
        made = EventBatch(batch_id=str(uuid4()))
        made.accept_time.FromDatetime(clock.now())
        organization_id, mode = self.tenant.organization_id, MODE_NUMBERS[self.tenant.mode]
        made.tenants.add(organization_id=organization_id, mode=mode, **fields)
        self.batches.append(made)
        return made

    @property
    def left(self) -> list[UsageEvent]:
        """What is not void."""
        return [event for event in self.events if event.event_id not in self.void]

    async def replay(
        self, tenant: TenantKey, metric: str, customer_id: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[UsageEvent]]:
        """What is not void, two at a time, as of when it is asked for."""
        self.replays += 1
        await self.before()
        found = [
            event
            for event in self.left
            if tenant == self.tenant
            and (event.metric, event.customer_id) == (metric, customer_id)
            and micros(start) <= event.time_unix_micros < micros(end)
        ]
        random.Random(len(found)).shuffle(found)
        await self.during()
        for at in range(0, len(found), 2):
            yield found[at : at + 2]

    async def history(
        self, metric: MetricKey, cursor: str, *, voids: bool
    ) -> AsyncIterator[HistoryPart]:
        """All events, or voids, in the order of time; a cursor is the last one's place in it."""
        found = sorted(
            (event.time_unix_micros, event.event_id, batch, event)
            for batch in self.batches
            for event in (batch.tenants[0].voided_events if voids else batch.tenants[0].events)
            if (metric.tenant, metric.key) == (self.tenant, event.metric)
        )
        behind = tuple(cursor.split(":")) if cursor else ("0", "")
        left = [each for each in found if (each[0], each[1].hex()) > (int(behind[0]), behind[1])]
        for at in range(0, len(left), self.part_events):
            await self.between()
            part = left[at : at + self.part_events]
            batches = [
                HistoryBatch(batch.batch_id, batch.accept_time.ToDatetime(tzinfo=UTC), [event])
                for _, _, batch, event in part
            ]
            yield HistoryPart(batches, f"{part[-1][0]}:{part[-1][1].hex()}")
        await self.between()
        yield HistoryPart([], "")

    def figure(self, aggregation: str, metric: str) -> Fraction:
        """The figure of all that is not void, counted plainly."""
        events = [event for event in self.left if event.metric == metric]
        amounts = [Fraction(event.amount) for event in events]
        if not events:
            return Fraction(0)
        last = max(events, key=lambda event: (event.time_unix_micros, event.event_id))
        return {
            "SUM": lambda: sum(amounts, Fraction(0)),
            "COUNT": lambda: Fraction(len(amounts)),
            "MAX": lambda: max(amounts),
            "MIN": lambda: min(amounts),
            "AVG": lambda: _rounded(sum(amounts, Fraction(0)) / len(amounts)),
            "LATEST": lambda: Fraction(last.amount),
        }[aggregation]()


def _rounded(figure: Fraction) -> Fraction:
    """Half up to 12 digits."""
    return Fraction(int(figure * 10**12 + Fraction(1, 2)), 10**12)


def exactly(value: Decimal) -> Fraction:
    """A figure as it was told."""
    return Fraction(value)
