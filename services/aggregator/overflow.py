"""Prices of values that a full dimension does not know.

Their usage lies under dimensions.OVERFLOW together with that of others, so buckets can't tell it.
Where a customer has such usage, the parts of a split that names such a value are counted from the
stored events: no price by dimensions is ever wrong because there were too many values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import structlog
from prometheus_client import Counter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1.events_pb2 import UsageEvent

from services.aggregator import dimensions, metric_repository
from services.aggregator.aggregations import KINDS, Tally
from services.aggregator.bucket import Bucket
from services.aggregator.details import NO_VALUE, value_key
from services.aggregator.domain import Metric
from services.aggregator.known_values import find_full
from services.aggregator.questions import Selection
from services.aggregator.recounter import ReplaySource
from services.aggregator.usage_repository import Split, Wanted
from services.kit.database import TenantKey
from services.kit.errors import NotYetError

log = structlog.get_logger()

RETRY_AFTER_S = 60.0
_RECOUNTED = Counter(
    "usageflow_overflowed_parts_recounted", "Prices by dimensions counted from stored events"
)

Matches = Sequence[Mapping[str, str]]
# A metric's key and the index of a selection.
Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Overflowed:
    """A split whose parts only the events tell. `counted`: of how many the buckets are made."""

    metric: Metric
    selection: Selection
    matches: Matches
    full: dimensions.Full
    counted: int


_ANY_OVERFLOW = text("""
SELECT EXISTS (
    SELECT FROM series JOIN usage_buckets USING (series_id)
    WHERE metric_id = :metric_id AND customer_id = :customer_id
        AND bucket_start >= :start AND bucket_start < :end
        AND EXISTS (
            SELECT FROM unnest(CAST(:names AS text[])) AS asked (name)
            WHERE dimensions ->> name = :overflow
        )
)
""")


async def find_overflowed(
    connection: AsyncConnection,
    tenant: TenantKey,
    splits: Mapping[Place, Split],
    selections: Sequence[Selection],
    tallies: Mapping[Wanted, Tally],
) -> dict[Place, Overflowed]:
    """Those of the splits whose parts buckets can't tell."""
    if not splits:
        return {}
    full = await find_full(connection, {split.wanted.metric_id for split in splits.values()})
    found: dict[Place, Overflowed] = {}
    for (key, number), split in splits.items():
        known = full.get(split.wanted.metric_id, {})
        if known and await _needs_events(connection, split, known):
            metric = await metric_repository.get_metric(connection, tenant, key)
            assert metric is not None, "it has usage"
            counted = tallies[split.wanted].event_count
            found[key, number] = Overflowed(
                metric, selections[number], split.matches, known, counted
            )
    return found


async def _needs_events(connection: AsyncConnection, split: Split, full: dimensions.Full) -> bool:
    names = {
        name
        for match in split.matches
        for name, value in match.items()
        if name in full and dimensions.needs_room(value) and value_key(value) not in full[name]
    }
    if not names:
        return False
    values = {
        "metric_id": split.wanted.metric_id,
        "customer_id": split.wanted.customer_id,
        "start": split.wanted.start,
        "end": split.wanted.end,
        "names": sorted(names),
        "overflow": dimensions.OVERFLOW,
    }
    return bool((await connection.execute(_ANY_OVERFLOW, values)).scalar_one())


async def parts_of_events(source: ReplaySource, overflowed: Overflowed) -> tuple[Decimal, ...]:
    """A figure for each match and one for the rest, of the events that are stored.

    NotYetError: there are less than were `counted`, because a void is on its way, or because they
    were dropped after their organization's eventRetentionDays: never bill on a guess.
    UnavailableError: ingest is away, or it takes too long.
    """
    key, asked, parts = overflowed.metric.definition.key, overflowed.selection, _Parts(overflowed)
    tenant, counted = overflowed.metric.tenant, overflowed.counted
    replay = source.replay(tenant, key, asked.customer_id, asked.start, asked.end)
    async for events in replay:
        for event in events:
            parts.add(event)
    _RECOUNTED.inc()
    if parts.events < counted:
        log.error("overflowed_parts_unknown", metric=key, stored=parts.events, counted=counted)
        raise NotYetError(
            f'The prices of "{key}" name values that came when a dimension was full, and not all '
            "of its events are stored (any more)",
            reason="dimension_overflow",
            retry_after_s=RETRY_AFTER_S,
        )
    return parts.figures()


class _Parts:
    """The events of each match, and of the rest."""

    def __init__(self, overflowed: Overflowed) -> None:
        self._definition = overflowed.metric.definition
        self._read = dimensions.reader(self._definition.dimensions)
        self._matches = overflowed.matches
        self._full = overflowed.full
        self._buckets: list[Bucket | None] = [None] * (len(self._matches) + 1)
        self.events = 0

    def add(self, event: UsageEvent) -> None:
        """Count an event."""
        self.events += 1
        index = self._index(event)
        one = Bucket.of(Decimal(event.amount), event.time_unix_micros, event.event_id)
        if self._definition.unique_by:
            one.add_value(dimensions.key_of(self._definition.unique_by, event.metadata_json))
        bucket = self._buckets[index]
        if bucket is None:
            self._buckets[index] = one
        else:
            bucket.merge(one)

    def _index(self, event: UsageEvent) -> int:
        names = self._definition.dimensions
        sent = self._read(event.metadata_json) if self._read else ()
        values = dict(zip(names, sent, strict=True))
        counted_as = dict(zip(names, dimensions.bounded(names, sent, self._full), strict=True))
        for index, match in enumerate(self._matches):
            if all(
                value in (values.get(name, ""), counted_as.get(name, ""))
                for name, value in match.items()
            ):
                return index
        return len(self._matches)

    def figures(self) -> tuple[Decimal, ...]:
        """The figure of each."""
        figure = KINDS[self._definition.aggregation].figure
        return tuple(figure(_tally(bucket)) for bucket in self._buckets)


def _tally(bucket: Bucket | None) -> Tally:
    if bucket is None:
        return Tally()
    return Tally(
        event_count=bucket.event_count,
        amount_sum=bucket.amount_sum,
        amount_min=bucket.amount_min,
        amount_max=bucket.amount_max,
        latest_value=bucket.latest_value,
        unique_count=len((bucket.values or {}).keys() - {NO_VALUE}),
    )
