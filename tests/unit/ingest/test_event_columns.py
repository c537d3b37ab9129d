"""A message says of each event what was stored."""

import random
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from usageflow.events.v1 import events_pb2

from services.aggregator.fold import rows_of
from services.ingest.batches import message_of, void_message_of
from services.ingest.domain import Event, Tenant
from services.ingest.events import Batch, Events, StoredBatch

BATCH_ID = UUID(int=12)
ACCEPTED = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
FEW = st.sampled_from(["", "a", "b"])
TIMES = st.integers(min_value=-(2**63), max_value=2**63 - 1)
EVENTS = st.builds(
    Event,
    event_id=st.binary(min_size=16, max_size=16),
    tenant=st.sampled_from([Tenant(bytes(16), 1), Tenant(bytes(16), 2), Tenant(b"o" * 16, 1)]),
    metric=FEW | TEXTS,
    amount=FEW | TEXTS,
    customer_id=FEW | TEXTS,
    time_micros=st.sampled_from([0, 7]) | TIMES,
    time_sent=st.booleans(),
    metadata_json=FEW | TEXTS,
)
BATCHES = st.lists(EVENTS, max_size=20, unique_by=lambda event: event.event_id)


def told(events: list[Event]) -> list[tuple[object, ...]]:
    """What a message has to tell of the events, in its order."""
    return [
        (
            event.tenant.organization_id,
            event.tenant.mode,
            event.event_id,
            event.metric,
            event.amount,
            event.customer_id,
            event.time_micros,
            event.metadata_json,
        )
        for event in sorted(events, key=lambda event: (event.tenant, event.event_id))
    ]


def stored(events: list[Event]) -> StoredBatch:
    return StoredBatch(Batch(BATCH_ID, Events.of(events)), ACCEPTED)


def head_of(message: events_pb2.EventBatch) -> tuple[str, datetime]:
    return message.batch_id, message.accept_time.ToDatetime(tzinfo=UTC)


@given(BATCHES, st.randoms(use_true_random=False))
def test_a_batch_of_events(events: list[Event], order: random.Random) -> None:
    made = message_of(stored(events))
    message = events_pb2.EventBatch.FromString(made.payload)
    assert head_of(message) == (str(BATCH_ID), ACCEPTED)
    assert told(events) == [
        (tenant.organization_id, tenant.mode, *row)
        for tenant in message.tenants
        for row in rows_of(tenant.columns)
    ]
    order.shuffle(events)
    assert message_of(stored(events)) == made


@given(BATCHES)
def test_a_batch_of_voids(events: list[Event]) -> None:
    message = events_pb2.EventBatch.FromString(void_message_of(stored(events)).payload)
    assert head_of(message) == (str(BATCH_ID), ACCEPTED)
    assert told(events) == [
        (
            tenant.organization_id,
            tenant.mode,
            voided.event_id,
            voided.metric,
            voided.amount,
            voided.customer_id,
            voided.time_unix_micros,
            voided.metadata_json,
        )
        for tenant in message.tenants
        for voided in tenant.voided_events
    ]


def test_what_all_events_have_in_common_is_written_once() -> None:
    tenant = Tenant(bytes(16), 1)
    events = [Event(n.to_bytes(16), tenant, "m", "1", "", 5, False, "") for n in range(3)]
    message = events_pb2.EventBatch.FromString(message_of(stored(events)).payload)
    assert message.tenants[0].columns == events_pb2.EventColumns(
        event_ids=b"".join(event.event_id for event in events),
        metrics=["m"],
        amounts=["1"],
        customer_ids=[""],
        times_unix_micros=[5],
    )
