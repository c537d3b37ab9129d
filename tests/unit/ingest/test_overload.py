"""What ingest does with calls that it has no room for."""

from typing import cast

import pytest
from usageflow.common.v1.common_pb2 import MODE_LIVE
from usageflow.ingest.v1 import ingest_pb2 as pb

from services.ingest.domain import Event, Tenant
from services.ingest.events import Events
from services.ingest.history import Histories
from services.ingest.queue import EventQueue
from services.ingest.replay import Replays
from services.ingest.service import Ingest
from services.ingest.servicer import IngestInternalServicer, IngestServicer
from services.ingest.voids import Voids
from services.kit import auth
from services.kit.database import Database
from services.kit.errors import OverloadedError

ORGANIZATION_ID = f"org_{'0' * 32}"
EVENT = Event(bytes(16), Tenant(bytes(16), 1), "m", "1", "", 0, True, "")
UNREADABLE = pb.EventInput(metric="not a metric", amount="much")


@pytest.fixture
async def full() -> Ingest:
    """An ingest whose queue has room for nothing."""
    queue = EventQueue(events_max=1, bytes_max=100)
    queue.put(Events.of([EVENT]), 10)
    return Ingest(cast(Database, None), queue)


async def test_a_call_without_room_is_refused_before_its_events_are_read(full: Ingest) -> None:
    """Had they been read, the answer were that they are REJECTED."""
    servicer = IngestServicer(full, cast(Voids, None))
    auth.set_principal(auth.Principal("key", ORGANIZATION_ID, 1, "live", frozenset({"track"})))
    with pytest.raises(OverloadedError) as refused:
        await servicer.RecordEvents(pb.RecordEventsRequest(events=[UNREADABLE]), None)
    assert refused.value.retry_after_s


async def test_the_gateways_calls_are_refused_like_those_of_others(full: Ingest) -> None:
    servicer = IngestInternalServicer(full, cast(Replays, None), cast(Histories, None))
    part = pb.TenantEventInputs(
        organization_id=ORGANIZATION_ID, mode=MODE_LIVE, events=[UNREADABLE]
    )
    with pytest.raises(OverloadedError):
        await servicer.RecordTenantEvents(pb.RecordTenantEventsRequest(tenants=[part]), None)
