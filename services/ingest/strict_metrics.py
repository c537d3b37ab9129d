"""Organizations with strict metrics: events of a metric that nobody has defined are refused.

aggregator knows the metrics. That one is defined never changes again, so it is remembered; of any
other one aggregator is asked each time: an event sent after CreateMetric has answered is taken.
"""

import asyncio
import itertools
from collections.abc import Collection, Mapping
from types import MappingProxyType

import structlog

from services.ingest.domain import Outcome, Status, Tenant
from services.kit.errors import DomainError, FieldProblem, UnavailableError
from services.kit.events import is_metric
from services.kit.metrics import FoundMetrics, MetricsSource

log = structlog.get_logger()

# About 20 MB.
REMEMBERED_MAX = 100_000
ASK_TIMEOUT_S = 1.0
ASKING_MAX = 16

# What becomes of the events of some metrics; those of all others are taken.
Refused = Mapping[str, Outcome]
NONE_REFUSED: Refused = MappingProxyType({})

_UNDEFINED = Outcome(
    Status.REJECTED,
    (
        FieldProblem(
            "metric", "must be a metric that is defined: the organization has strict metrics"
        ),
    ),
)
_UNDECIDED = Outcome(
    Status.UNAVAILABLE,
    (FieldProblem("metric", "could not be looked up now; the same event again is safe"),),
)


class NoMetrics:
    """A MetricsSource where no aggregator is set: events are refused until one is."""

    async def find(self, organization_id: str, mode: int, keys: Collection[str]) -> FoundMetrics:
        """UnavailableError."""
        raise UnavailableError("aggregator's address is not set (USAGEFLOW_AGGREGATOR_ADDRESS)")


class StrictMetrics:
    """Decides which events an organization with strict metrics does not want."""

    def __init__(self, source: MetricsSource) -> None:
        self._source = source
        self._asking = asyncio.Semaphore(ASKING_MAX)
        self._defined: dict[tuple[Tenant, str], None] = {}

    async def refused(self, tenant: Tenant, metrics: Collection[str]) -> Refused:
        """What becomes of events of undefined metrics, and of those that can't be looked up now."""
        # What is no metric's key is refused as such.
        unknown = {
            metric
            for metric in metrics
            if (tenant, metric) not in self._defined and is_metric(metric)
        }
        if not unknown:
            return NONE_REFUSED
        try:
            async with self._asking:
                found = await self._source.find(tenant.organization_id, tenant.mode, unknown)
        except DomainError as error:
            log.warning("metrics_not_looked_up", error=error.message)
            return dict.fromkeys(unknown, _UNDECIDED)
        self._defined.update(dict.fromkeys((tenant, metric) for metric in found.defined))
        surplus = max(len(self._defined) - REMEMBERED_MAX, 0)
        for key in list(itertools.islice(self._defined, surplus)):
            del self._defined[key]
        return dict.fromkeys(unknown - found.defined, _UNDEFINED)
