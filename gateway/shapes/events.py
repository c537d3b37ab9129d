"""Raw events, as they were accepted."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, field
from usageflow.ingest.v1 import ingest_pb2 as pb

from gateway.shapes.common import Amount, PageQuery, raw_object, time_of, timestamp


class Event(msgspec.Struct, rename="camel", kw_only=True):
    """A stored event."""

    id: str
    metric: str
    amount: Amount
    customer_id: str | None
    timestamp: datetime
    metadata: msgspec.Raw
    accepted_at: datetime


class EventPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of events."""

    data: list[Event]
    next_cursor: str | None


class EventsQuery(PageQuery, rename="camel", kw_only=True):
    """Which events."""

    customer_id: str = ""
    metric: str = ""
    from_: Annotated[datetime | None, Meta(description="Happened at or after")] = field(
        default=None, name="from"
    )
    to: Annotated[datetime | None, Meta(description="Happened before")] = None


def to_proto(asked: EventsQuery) -> pb.ListEventsRequest:
    """The request that lists them."""
    return pb.ListEventsRequest(
        customer_id=asked.customer_id,
        metric=asked.metric,
        to=timestamp(asked.to),
        page_size=asked.limit,
        page_token=asked.cursor,
        # The field's name is a keyword of Python.
        **{"from": timestamp(asked.from_)},
    )


def from_proto(message: pb.StoredEvent) -> Event:
    """The JSON of an event."""
    return Event(
        id=message.event_id,
        metric=message.metric,
        amount=message.amount,
        customer_id=message.customer_id or None,
        timestamp=time_of(message.time),
        metadata=raw_object(message.metadata_json),
        accepted_at=time_of(message.accept_time),
    )
