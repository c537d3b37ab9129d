"""The bytes put together by hand are those that protobuf makes."""

from datetime import UTC, datetime
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from usageflow.events.v1 import events_pb2

from services.ingest.batches import message_of, void_message_of
from services.ingest.domain import Batch, Event, StoredBatch, Tenant
from services.ingest.event_message import varint

BATCH_ID = UUID(int=12)
ACCEPTED = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
EVENTS = st.builds(
    Event,
    event_id=st.binary(min_size=16, max_size=16),
    tenant=st.sampled_from([Tenant(bytes(16), 1), Tenant(bytes(16), 2), Tenant(b"o" * 16, 1)]),
    metric=TEXTS,
    amount=TEXTS,
    customer_id=TEXTS,
    time_micros=st.integers(min_value=-(2**63), max_value=2**63 - 1),
    time_sent=st.booleans(),
    metadata_json=TEXTS,
)


def by_protobuf(events: list[Event], field: str) -> bytes:
    message = events_pb2.EventBatch(batch_id=str(BATCH_ID))
    message.accept_time.FromDatetime(ACCEPTED)
    for tenant in sorted({event.tenant for event in events}):
        group = message.tenants.add(organization_id=tenant.organization_id, mode=tenant.mode)
        for event in sorted(events, key=lambda event: event.event_id):
            if event.tenant == tenant:
                getattr(group, field).add(
                    event_id=event.event_id,
                    metric=event.metric,
                    amount=event.amount,
                    customer_id=event.customer_id,
                    time_unix_micros=event.time_micros,
                    metadata_json=event.metadata_json,
                )
        if field == "events":
            group.metrics.extend(sorted({each.metric for each in group.events}))
    return message.SerializeToString()


@given(st.lists(EVENTS, max_size=20))
def test_a_batch_of_events(events: list[Event]) -> None:
    made = message_of(StoredBatch(Batch(BATCH_ID, events), ACCEPTED))
    assert made.payload == by_protobuf(events, "events")


@given(st.lists(EVENTS, max_size=5))
def test_a_batch_of_voids(events: list[Event]) -> None:
    made = void_message_of(StoredBatch(Batch(BATCH_ID, events), ACCEPTED))
    assert made.payload == by_protobuf(events, "voided_events")


def test_numbers_take_seven_bits_a_byte() -> None:
    assert [varint(number) for number in (0, 127, 128, 300)] == [
        b"\x00",
        b"\x7f",
        b"\x80\x01",
        b"\xac\x02",
    ]
