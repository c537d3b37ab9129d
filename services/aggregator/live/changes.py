"""Tells the other replicas, by core NATS, which metrics were counted here.

At most every TELL_EVERY_S, and many metrics as "any". What is lost on the way only delays an
answer: whoever watches asks again from time to time.
"""

import asyncio
from collections.abc import Callable, Collection

import structlog
from usageflow.aggregator.v1 import live_pb2 as pb

from services.aggregator.metric_repository import MetricKey
from services.kit.auth import MODE_NAMES, MODE_NUMBERS
from services.kit.errors import UnavailableError
from services.kit.messaging import Messaging

log = structlog.get_logger()

SUBJECT = "usageflow.aggregator.usage_changed"
TELL_EVERY_S = 0.5
# Some 90 KiB; a message may have a mebibyte.
METRICS_MAX = 500

# What is called with metrics whose usage may have changed; none: any may.
Changed = Callable[[Collection[MetricKey]], None]


class UsageChanges:
    """What this replica counts goes to `changed` here at once, and to all others."""

    def __init__(self, messaging: Messaging, changed: Changed) -> None:
        self._messaging = messaging
        self._changed = changed
        self._metrics: set[MetricKey] = set()
        self._any = False
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Begin to listen to the others."""
        await self._messaging.on_broadcast(SUBJECT, self._on_changed)

    def counted(self, metrics: Collection[MetricKey]) -> None:
        """A transaction that has counted usage of `metrics` has committed; none: of any."""
        self._changed(metrics)
        self._metrics.update(metrics)
        if not metrics or len(self._metrics) > METRICS_MAX:
            self._any = True
            self._metrics.clear()
        self._wake.set()

    async def run(self) -> None:
        """Tell the others until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._messaging.broadcast(SUBJECT, self._take().SerializeToString())
            except (UnavailableError, TimeoutError) as error:
                log.debug("usage_changes_not_told", error=repr(error))
            await asyncio.sleep(TELL_EVERY_S)

    def _take(self) -> pb.UsageChanged:
        metrics = [] if self._any else sorted(self._metrics)
        self._metrics.clear()
        self._any = False
        return pb.UsageChanged(
            metrics=[
                pb.ChangedMetric(
                    organization_id=metric.organization_id,
                    mode=MODE_NUMBERS[metric.mode],
                    key=metric.key,
                )
                for metric in metrics
            ]
        )

    async def _on_changed(self, payload: bytes) -> None:
        told = pb.UsageChanged.FromString(payload).metrics
        self._changed(
            {MetricKey(each.organization_id, MODE_NAMES[each.mode], each.key) for each in told}
        )
