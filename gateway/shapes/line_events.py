"""The raw events behind a line of an invoice."""

from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.invoicer.v1 import documents_pb2 as pb

from gateway.shapes.common import PageQuery
from gateway.shapes.events import Event, fields_of


class LineEvent(Event, rename="camel", kw_only=True):
    """An event that a line of an invoice rests on, as it is now."""

    taken_out: Annotated[
        bool,
        Meta(
            description="Of late usage: it was billed before and then voided, so that the line "
            "takes it out"
        ),
    ]


class LineEventPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of the events behind a line."""

    data: list[LineEvent]
    next_cursor: str | None
    exact: Annotated[
        bool,
        Meta(
            description="Whether these are exactly the events that were counted; false for old "
            "invoices: those that were accepted before the invoice"
        ),
    ]
    complete: Annotated[
        bool,
        Meta(
            description="Whether all of them are here, on this page and the others; false when "
            "events of your organization that happened in the line's period were dropped after "
            "its `eventRetentionDays`: some of these may have been among them"
        ),
    ]


class LineEventsQuery(PageQuery, rename="camel", kw_only=True):
    """Which page."""


def page_from_proto(message: pb.ListLineEventsResponse) -> LineEventPage:
    """The JSON of a page."""
    return LineEventPage(
        data=[
            LineEvent(**fields_of(each.event), taken_out=each.taken_out) for each in message.events
        ],
        next_cursor=message.next_page_token or None,
        exact=message.exact,
        complete=not message.dropped,
    )
