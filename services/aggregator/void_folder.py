"""Applies a batch of voids inside the fold's transaction: the inbox makes it count once."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1.events_pb2 import EventBatch, UsageEvent

from services.aggregator import fold_repository, void_repository
from services.aggregator.detail_repository import Detail, subtract_details
from services.aggregator.fold import Series, events_in, tenant_of
from services.aggregator.known_values import find_full
from services.aggregator.metric_repository import MetricKey
from services.aggregator.quotas.change_repository import note_changes
from services.aggregator.quotas.repository import Holder
from services.aggregator.rebuilds.repository import fail_rebuild
from services.aggregator.void_repository import Built
from services.aggregator.voids import (
    BucketKey,
    VoidableBucket,
    VoidableMetric,
    details_of,
    possible_series,
    quarter_number,
)
from services.kit import clock

log = structlog.get_logger()


class BatchRefusedError(Exception):
    """A batch that can't be applied whole; nothing of it is, and its sender is not told it was."""


class _Voided(NamedTuple):
    """An event, whether its bucket's extremes matter, and the series that may hold it."""

    event: UsageEvent
    metric: VoidableMetric
    series: Sequence[Series]


def has_voids(batch: EventBatch) -> bool:
    """Whether it is a batch of voids."""
    return any(tenant.voided_events for tenant in batch.tenants)


async def apply_voids(connection: AsyncConnection, batch: EventBatch) -> int:
    """Take the batch's events out of their buckets; how many buckets are to be counted anew.

    BatchRefusedError: an event is in no bucket. ingest sends a void only after its event's batch
    was applied, so something is wrong; ingest's watermark stops until somebody has looked.
    """
    if events_in(batch):
        raise BatchRefusedError("a batch carries events or voids, never both")
    named = [
        (MetricKey(*tenant_of(tenant), event.metric), event)
        for tenant in batch.tenants
        for event in tenant.voided_events
    ]
    metrics = await void_repository.find_metrics(connection, {key for key, _ in named})
    unknown = {key for key, _ in named} - metrics.keys()
    if unknown:
        raise BatchRefusedError(f"nothing was counted of {min(unknown)}")
    voids = [(metrics[key], event) for key, event in named]
    marked = await take_out(connection, voids)
    for built in await void_repository.find_built(connection, {m.own_id for m, _ in voids}):
        events = [event for metric, event in voids if metric.own_id == built.of_metric_id]
        marked += await _take_out_of_built(connection, built, events)
    holders = {
        Holder(metric.own_id, event.customer_id) for metric, event in voids if event.customer_id
    }
    if holders:
        await note_changes(connection, holders)
    return marked


async def _take_out_of_built(
    connection: AsyncConnection, built: Built, events: Sequence[UsageEvent]
) -> int:
    """What is being built never holds up what is counted: it fails, and the rest goes on."""
    try:
        async with connection.begin_nested():
            return await take_out(connection, [(built.metric, event) for event in events])
    except BatchRefusedError as error:
        log.error("rebuild_failed", rebuild_id=built.rebuild_id, error=str(error))  # noqa: TRY400
        await fail_rebuild(connection, built.rebuild_id, str(error), clock.now())
        return 0


async def take_out(
    connection: AsyncConnection, voids: Sequence[tuple[VoidableMetric, UsageEvent]]
) -> int:
    """Take events out of the buckets that they were counted in; how many are to be counted anew.

    BatchRefusedError: one is in none.
    """
    voided = await _find_voided(connection, voids)
    series_ids = await fold_repository.find_series(
        connection, {series for each in voided for series in each.series}
    )
    wanted = {
        BucketKey(series_ids[series], quarter_number(each.event)): each.metric.needs_extremes
        for each in voided
        for series in each.series
        if series in series_ids
    }
    buckets = await void_repository.lock_buckets(connection, wanted)
    details: Counter[tuple[BucketKey, Detail]] = Counter()
    for each in voided:
        bucket = _bucket_of(each, series_ids, buckets)
        bucket.take_out(each.event)
        details.update((bucket.key, detail) for detail in details_of(each.metric, each.event))
    if not await subtract_details(connection, details):
        raise BatchRefusedError("an event's value or amount is in no bucket")
    touched = [bucket for bucket in buckets.values() if bucket.touched]
    return await void_repository.write_buckets(connection, touched)


async def _find_voided(
    connection: AsyncConnection, voids: Sequence[tuple[VoidableMetric, UsageEvent]]
) -> list[_Voided]:
    by_id = {metric.metric_id: metric for metric, _ in voids}
    full = await find_full(connection, {m.metric_id for m in by_id.values() if m.dimensions})
    known = {
        metric_id: replace(metric, full=full.get(metric_id, {}))
        for metric_id, metric in by_id.items()
    }
    return [
        _Voided(event, known[metric.metric_id], possible_series(known[metric.metric_id], event))
        for metric, event in voids
    ]


def _bucket_of(
    each: _Voided, series_ids: dict[Series, int], buckets: dict[BucketKey, VoidableBucket]
) -> VoidableBucket:
    quarter = quarter_number(each.event)
    keys = [
        BucketKey(series_ids[series], quarter) for series in each.series if series in series_ids
    ]
    possible = [
        buckets[key] for key in keys if key in buckets and buckets[key].may_hold(each.event)
    ]
    if not possible:
        raise BatchRefusedError(f"event {each.event.event_id.hex()} is in no bucket")
    return next((bucket for bucket in possible if bucket.spans(each.event)), possible[0])
