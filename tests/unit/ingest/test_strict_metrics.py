"""Of an organization with strict metrics only events of defined metrics are taken."""

from collections.abc import Collection

import pytest
from usageflow.ingest.v1 import ingest_pb2 as pb

from services.ingest import strict_metrics
from services.ingest.domain import ALL_ACCEPTED, Recorded, Status, Tenant
from services.ingest.strict_metrics import StrictMetrics
from services.ingest.wire import Intake
from services.kit.errors import UnavailableError
from services.kit.metrics import FoundMetrics

NOW = 1_800_000_000_000_000
ACME, OTHER = Tenant(bytes(range(16)), 2), Tenant(bytes(16), 2)


class Aggregator:
    """A MetricsSource that tells what a test has set."""

    def __init__(self) -> None:
        self.known: set[tuple[Tenant, str]] = set()
        self.asked: list[set[str]] = []
        self.away = False

    async def find(self, organization_id: str, mode: int, keys: Collection[str]) -> FoundMetrics:
        """What is set; the others have defined themselves. UnavailableError."""
        if self.away:
            raise UnavailableError("away")
        self.asked.append(set(keys))
        tenant = Tenant.of(organization_id, mode)
        known = frozenset(metric for metric in keys if (tenant, metric) in self.known)
        return FoundMetrics(defined=known, self_defined=frozenset(keys) - known)


async def statuses(strict: StrictMetrics, tenant: Tenant, *metrics: str) -> list[Status]:
    """What becomes of an event of each."""
    intake = Intake(NOW)
    refused = await strict.refused(tenant, set(metrics))
    inputs = [pb.EventInput(metric=metric, amount="1") for metric in metrics]
    intake.read(tenant, inputs, refused=refused)
    answer = intake.answer(pb.RecordEventsResponse, Recorded(ALL_ACCEPTED, ""))
    return [Status(receipt.status) for receipt in answer.receipts]


async def test_events_of_an_undefined_metric_are_rejected_until_it_is_defined() -> None:
    aggregator = Aggregator()
    strict = StrictMetrics(aggregator)
    aggregator.known = {(ACME, "A")}
    told = await statuses(strict, ACME, "A", "B", "A", "not a key")
    assert told == [Status.ACCEPTED, Status.REJECTED, Status.ACCEPTED, Status.REJECTED]
    aggregator.known |= {(ACME, "B")}
    assert await statuses(strict, ACME, "B") == [Status.ACCEPTED]
    assert aggregator.asked == [{"A", "B"}, {"B"}]


async def test_each_organization_and_mode_has_its_own() -> None:
    aggregator = Aggregator()
    strict = StrictMetrics(aggregator)
    aggregator.known = {(ACME, "A")}
    for tenant, status in (
        (ACME, Status.ACCEPTED),
        (OTHER, Status.REJECTED),
        (ACME._replace(mode=1), Status.REJECTED),
    ):
        assert await statuses(strict, tenant, "A") == [status]


async def test_while_aggregator_is_away_only_what_is_known_is_taken() -> None:
    aggregator = Aggregator()
    strict = StrictMetrics(aggregator)
    aggregator.known = {(ACME, "A"), (ACME, "B")}
    await statuses(strict, ACME, "A")
    aggregator.away = True
    assert await statuses(strict, ACME, "A", "B") == [Status.ACCEPTED, Status.UNAVAILABLE]
    aggregator.away = False
    assert await statuses(strict, ACME, "B") == [Status.ACCEPTED]


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strict_metrics, "REMEMBERED_MAX", 2)
    aggregator = Aggregator()
    strict = StrictMetrics(aggregator)
    aggregator.known = {(ACME, metric) for metric in "ABC"}
    for metric in "ABCBCA":
        assert await statuses(strict, ACME, metric) == [Status.ACCEPTED]
    assert aggregator.asked == [{"A"}, {"B"}, {"C"}, {"A"}]
