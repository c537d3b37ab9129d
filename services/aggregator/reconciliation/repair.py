"""Makes an hour of a metric what was accepted of it.

First what is missing: batches of the hour that the inbox does not know are fetched from ingest and
folded like any other; the inbox makes each count once. When none is missing, the buckets themselves
are wrong (they were changed by something else than the fold), and are counted anew from the events.

Counting anew while others fold needs no pause. In this order: note the version of every bucket of
the hour, read the events that are not void, ask whether all of the hour is confirmed, lock the
buckets and see that they are still of those versions, replace them. What was accepted before the
events were read was confirmed, hence counted, before the lock, and because no version has changed,
before the versions were noted; what was counted before that was accepted before the events were
read. So the events are exactly what the old buckets should have held, and whatever is folded later
adds to the new ones.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection
from usageflow.events.v1.events_pb2 import EventBatch

from services.aggregator import fold_repository, metric_repository, usage_repository
from services.aggregator.fold import Cells, Definition, Fold
from services.aggregator.folder import Folder, is_repeatable
from services.aggregator.metric_repository import MetricKey
from services.aggregator.quotas.change_repository import note_changes
from services.aggregator.quotas.repository import Holder
from services.aggregator.reconciliation import repository
from services.aggregator.reconciliation.domain import HourKey, Totals
from services.aggregator.reconciliation.repository import Versions
from services.aggregator.reconciliation.source import AcceptedSource
from services.kit import clock
from services.kit.auth import MODE_NUMBERS
from services.kit.database import Database
from services.kit.money import EXACT

log = structlog.get_logger()

# Bounds the memory of a recount; some 500 MB.
CELLS_MAX = 500_000
INBOX_ASKED_MAX = 1_000

_REPAIRS = Counter("usageflow_reconciliation_repairs", "Hours of metrics repaired", ["way"])
_BATCHES = Counter("usageflow_reconciliation_batches_fetched", "Batches that were missing")


class Repair:
    """Repairs one hour of one metric at a time."""

    def __init__(
        self,
        database: Database,
        source: AcceptedSource,
        folder: Folder,
        *,
        usage_changed: Callable[[], None],
    ) -> None:
        """`folder` counts what is missing; `usage_changed` is called after a recount."""
        self._database = database
        self._source = source
        self._folder = folder
        self._usage_changed = usage_changed

    async def fetch_missing(self, key: HourKey) -> int:
        """Apply the batches of the hour that were never applied; how many. UnavailableError."""
        missing = await self._missing(key)
        if not missing:
            return 0
        async for batch in self._source.get_batches(missing):
            await self._folder.apply([batch])
        log.warning("batches_fetched", **key._asdict(), batch_ids=missing[:100])
        _BATCHES.inc(len(missing))
        _REPAIRS.labels("batches").inc()
        return len(missing)

    async def _missing(self, key: HourKey) -> list[str]:
        refs = await self._source.find_batches(key)
        missing: list[str] = []
        for at in range(0, len(refs), INBOX_ASKED_MAX):
            asked = refs[at : at + INBOX_ASKED_MAX]
            async with self._database.transaction() as connection:
                known, horizon = await usage_repository.find_counted(
                    connection, [ref.batch_id for ref in asked]
                )
            # What lies before the horizon was applied, and the inbox has forgotten it.
            missing += [
                ref.batch_id
                for ref in asked
                if ref.batch_id not in known and (horizon is None or ref.accept_time >= horizon)
            ]
        return missing

    async def recount(self, key: HourKey) -> bool:
        """Replace the hour's buckets; False: something moves there, try later. UnavailableError."""
        metric = MetricKey(*key[:3])
        async with self._database.transaction() as connection:
            state = await fold_repository.read_fold_state(connection)
            definition = await _definition(connection, metric)
            noted = await repository.versions(connection, definition.metric_id, key.hour)
        cells = await self._cells(key, definition)
        if cells is None:
            return False
        accepted = await self._source.count_hour(key)
        if accepted.moving or _totals(cells) != accepted.totals:
            return False
        try:
            async with self._database.transaction() as connection:
                now = await fold_repository.read_fold_state(connection)
                if now.definition_version != state.definition_version or not await self._replace(
                    connection, metric, definition, cells, noted, key.hour
                ):
                    return False
        except DBAPIError as error:
            if is_repeatable(error):
                return False
            raise
        log.warning("hour_recounted", **key._asdict(), buckets_before=len(noted))
        _REPAIRS.labels("recount").inc()
        self._usage_changed()
        return True

    async def _replace(
        self,
        connection: AsyncConnection,
        metric: MetricKey,
        definition: Definition,
        cells: Cells,
        noted: Versions,
        hour: datetime,
    ) -> bool:
        """Put `cells` in the place of the hour's buckets; False: these are no longer those that
        were noted, or their extremes are being found anew.

        The locks are not taken in the fold's order: one of the two may have to do it again.
        """
        metric_id = definition.metric_id
        locked = await repository.versions(connection, metric_id, hour, lock=True)
        if locked != noted or await repository.is_recounted(connection, metric_id, hour):
            return False
        await repository.delete_buckets(connection, metric_id, hour)
        # Of all customers: also of those that have nothing in the new buckets.
        known = await metric_repository.get_metric(connection, metric.tenant, metric.key)
        assert known is not None, "metrics are never deleted"
        await note_changes(connection, [Holder(known.metric_id, "")])
        if cells:
            await self._folder.store_recounted(connection, metric, definition, cells)
        return True

    async def _cells(self, key: HourKey, definition: Definition) -> Cells | None:
        """The hour's events, folded; None: they are more than fit."""
        folded = Fold({key.tenant: {key.metric: definition}})
        async for events in self._source.replay(key):
            batch = EventBatch()
            batch.tenants.add(
                organization_id=key.organization_id, mode=MODE_NUMBERS[key.mode], events=events
            )
            folded.add(batch)
            if folded.size > CELLS_MAX:
                log.error("hour_too_large_to_recount", **key._asdict(), cells_max=CELLS_MAX)
                return None
        return folded.cells()


def _totals(cells: Cells) -> Totals:
    total = Decimal(0)
    for bucket in cells.values():
        total = EXACT.add(total, bucket.amount_sum)
    return Totals(sum(bucket.event_count for bucket in cells.values()), total)


async def _definition(connection: AsyncConnection, metric: MetricKey) -> Definition:
    found = await metric_repository.find_definitions(connection, {metric})
    if not found:
        await metric_repository.define_by_event(connection, {metric}, clock.now())
        found = await metric_repository.find_definitions(connection, {metric})
    return found[metric]
