"""Raw events, as they were accepted."""

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, field
from usageflow.ingest.v1 import ingest_pb2 as pb

from gateway.shapes.common import (
    Amount,
    PageQuery,
    raw_object,
    time_of,
    time_or_none,
    timestamp,
)
from services.kit.events import IDEMPOTENCY_KEY_CHARS_MAX

VOID_REASON_CHARS_MAX: Final = 500


class Event(msgspec.Struct, rename="camel", kw_only=True):
    """A stored event."""

    id: str
    metric: str
    amount: Amount
    customer_id: str | None
    timestamp: datetime
    metadata: msgspec.Raw
    accepted_at: datetime
    voided_at: Annotated[
        datetime | None,
        Meta(description="When it was taken out of what is billed; null: it was not"),
    ]
    void_reason: str | None


class VoidRequest(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """Why an event is voided."""

    reason: Annotated[
        str, Meta(max_length=VOID_REASON_CHARS_MAX, description="For people; kept with the void")
    ] = ""


NO_REASON: Final = VoidRequest()


class EventPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of events."""

    data: list[Event]
    next_cursor: str | None


class EventsQuery(PageQuery, rename="camel", kw_only=True):
    """Which events."""

    customer_id: str = ""
    metric: str = ""
    idempotency_key: Annotated[
        str,
        Meta(
            max_length=IDEMPOTENCY_KEY_CHARS_MAX,
            description="Only the event that was sent with this key",
        ),
    ] = ""
    from_: Annotated[datetime | None, Meta(description="Happened at or after")] = field(
        default=None, name="from"
    )
    to: Annotated[datetime | None, Meta(description="Happened before")] = None


def to_proto(asked: EventsQuery) -> pb.ListEventsRequest:
    """The request that lists them."""
    return pb.ListEventsRequest(
        customer_id=asked.customer_id,
        metric=asked.metric,
        idempotency_key=asked.idempotency_key,
        to=timestamp(asked.to),
        page_size=asked.limit,
        page_token=asked.cursor,
        # The field's name is a keyword of Python.
        **{"from": timestamp(asked.from_)},
    )


def from_proto(message: pb.StoredEvent) -> Event:
    """The JSON of an event."""
    return Event(**fields_of(message))


def fields_of(message: pb.StoredEvent) -> dict[str, Any]:
    """The fields of the JSON of an event."""
    return {
        "id": message.event_id,
        "metric": message.metric,
        "amount": message.amount,
        "customer_id": message.customer_id or None,
        "timestamp": time_of(message.time),
        "metadata": raw_object(message.metadata_json),
        "accepted_at": time_of(message.accept_time),
        "voided_at": time_or_none(message, "void_time"),
        "void_reason": message.void_reason or None,
    }
