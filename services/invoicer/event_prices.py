"""Usage whose price depends on each event: aggregator's figures, and the raw events behind them.

The events are those that aggregator says its figures hold, read from ingest in the order in which
they happened and priced as they come: memory is the same however many there are.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

import grpc
import structlog
from pydantic import SecretStr
from usageflow.ingest.v1 import counted_pb2, counted_pb2_grpc

from services.invoicer.closing import Selection, Usage
from services.invoicer.domain import MetricPrice
from services.invoicer.line_events import CountedUsage, boundary_message
from services.invoicer.pricing.percentage import EventWalk, Percentage
from services.invoicer.pricing.usage import EventSums, MetricUsage
from services.invoicer.readings import Counted
from services.invoicer.usage import BillableUsage, UsageSource
from services.kit.auth import MODE_NUMBERS
from services.kit.database import TenantKey
from services.kit.errors import from_rpc_error
from services.kit.grpc_client import internal_metadata

log = structlog.get_logger()

# An ingest answers one at a time: another may wait there, or be answered by another replica.
STREAMS_RUNNING_MAX = 2


class AmountSource(Protocol):
    """Where the amounts of events come from."""

    def amounts(self, tenant: TenantKey, wanted: CountedUsage) -> AsyncIterator[Sequence[str]]:
        """Those of all events in `wanted.until`, oldest first, in parts. UnavailableError."""


class IngestAmounts:
    """An AmountSource that asks ingest over gRPC."""

    def __init__(self, channel: grpc.aio.Channel, token: SecretStr, timeout_s: float) -> None:
        """`timeout_s` is for all events of one customer, metric and period."""
        self._stub = counted_pb2_grpc.CountedEventsInternalServiceStub(channel)
        self._token = token
        self._timeout_s = timeout_s

    async def amounts(
        self, tenant: TenantKey, wanted: CountedUsage
    ) -> AsyncIterator[Sequence[str]]:
        """Those of all events in `wanted.until`, oldest first, in parts."""
        request = counted_pb2.StreamCountedAmountsRequest(
            organization_id=tenant.organization_id,
            mode=MODE_NUMBERS[tenant.mode],
            metric=wanted.metric,
            customer_id=wanted.customer_id,
            until=boundary_message(wanted.until),
        )
        # Not "request.from": that is a word of Python's.
        getattr(request, "from").FromDatetime(wanted.period.start)
        request.to.FromDatetime(wanted.period.end)
        call = self._stub.StreamCountedAmounts(
            request, timeout=self._timeout_s, metadata=internal_metadata(self._token)
        )
        try:
            async for response in call:
                yield response.amounts
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        finally:
            call.cancel()


class EventPricedUsage:
    """A UsageSource that adds to another's answers what prices of each event need."""

    def __init__(self, usage: UsageSource, amounts: AmountSource) -> None:
        self._usage = usage
        self._amounts = amounts
        self._running = asyncio.Semaphore(STREAMS_RUNNING_MAX)

    async def billable(
        self, tenant: TenantKey, selections: Sequence[Selection], *, tell_counted: bool = False
    ) -> BillableUsage:
        """The usage of at most 1,000 selections. UnavailableError when it can't be told now."""
        by_event = any(_needs_events(price) for each in selections for price in each.prices)
        answer = await self._usage.billable(
            tenant, selections, tell_counted=tell_counted or by_event
        )
        if not by_event:
            return answer
        assert answer.counted is not None, "asked for"
        pricing = [
            asyncio.ensure_future(self._with_events(tenant, selection, usage, answer.counted))
            for selection, usage in zip(selections, answer.usages, strict=True)
        ]
        try:
            return replace(answer, usages=await asyncio.gather(*pricing))
        finally:
            # When one fails the others are of no use.
            for each in pricing:
                each.cancel()

    async def _with_events(
        self, tenant: TenantKey, selection: Selection, usage: Usage, counted: Counted
    ) -> Usage:
        found = dict(usage)
        for price in selection.prices:
            if _needs_events(price):
                wanted = CountedUsage(
                    selection.customer_id, price.metric, selection.period, counted, None
                )
                told = usage[price.metric]
                found[price.metric] = await self._priced(tenant, price, told, wanted)
        return found

    async def _priced(
        self, tenant: TenantKey, price: MetricPrice, told: MetricUsage, wanted: CountedUsage
    ) -> MetricUsage:
        if not told.event_count:
            return replace(told, event_sums=EventSums())
        assert isinstance(price.model, Percentage)
        walk = EventWalk(price.model, price.included_units)
        async with self._running:
            async for part in self._amounts.amounts(tenant, wanted):
                walk.add(map(Decimal, part))
        if (walk.count, walk.total) != (told.event_count, told.quantity):
            log.warning(
                "events_are_not_those_counted",
                metric=wanted.metric,
                period_start=wanted.period.start.isoformat(),
                events=walk.count,
                counted=told.event_count,
            )
            return replace(told, events_dropped=True)
        return replace(told, event_sums=walk.sums())


def _needs_events(price: MetricPrice) -> bool:
    return isinstance(price.model, Percentage) and price.model.needs_events
