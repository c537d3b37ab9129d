"""The audit log: what was done to the organization."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, field
from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.shapes.common import PageQuery, raw_object, time_of, timestamp


class AuditEvent(msgspec.Struct, rename="camel", kw_only=True):
    """One thing that was done; it never changes."""

    id: str
    action: Annotated[str, Meta(description='What was done: "webhook.created"')]
    target_id: Annotated[
        str | None, Meta(description="What it was done to; null: several, which details name")
    ]
    key_id: Annotated[
        str | None, Meta(description="The API key of who did it; null: UsageFlow itself")
    ]
    request_id: str | None
    created_at: datetime
    details: Annotated[
        msgspec.Raw, Meta(description='More about it; of a change "before" and "after"')
    ]


class AuditPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of what was done."""

    data: list[AuditEvent]
    next_cursor: str | None


class AuditQuery(PageQuery, rename="camel", kw_only=True):
    """Which events of the audit log; times are half-open."""

    action: Annotated[str, Meta(description='An action, or a group of them: "webhook.*"')] = ""
    target_id: Annotated[str, Meta(description="What it was done to")] = ""
    key_id: Annotated[str, Meta(description="Whose API key did it")] = ""
    from_: datetime | None = field(name="from", default=None)
    to: datetime | None = None


def to_proto(asked: AuditQuery) -> pb.ListAuditEventsRequest:
    """The request for a page."""
    return pb.ListAuditEventsRequest(
        action=asked.action,
        target_id=asked.target_id,
        key_id=asked.key_id,
        from_time=timestamp(asked.from_),
        to_time=timestamp(asked.to),
        page_size=asked.limit,
        page_token=asked.cursor,
    )


def from_proto(message: pb.AuditEvent) -> AuditEvent:
    """The JSON of an event."""
    return AuditEvent(
        id=message.id,
        action=message.action,
        target_id=message.target_id or None,
        key_id=message.key_id or None,
        request_id=message.request_id or None,
        created_at=time_of(message.time),
        details=raw_object(message.details_json),
    )
