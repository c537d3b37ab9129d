"""The audit log: what was done to the organization."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, field
from usageflow.accounts.v1 import accounts_pb2 as pb

from gateway.shapes.common import PageCursor, PageLimit, raw_object, time_of, timestamp
from services.kit.errors import FieldProblem, InvalidArgumentError
from services.kit.pages import PAGE_SIZE_DEFAULT


class AuditEvent(msgspec.Struct, rename="camel", kw_only=True):
    """One thing that was done; it never changes."""

    id: str
    action: Annotated[str, Meta(description='What was done: "webhook.created"')]
    target_id: Annotated[
        str | None, Meta(description="What it was done to; null: several, which details name")
    ]
    key_id: Annotated[
        str | None, Meta(description="The API key that did it; null: a member or UsageFlow itself")
    ]
    member_id: Annotated[
        str | None, Meta(description="The member who did it; null: a key or UsageFlow itself")
    ]
    request_id: str | None
    created_at: datetime
    details: Annotated[
        msgspec.Raw, Meta(description='More about it; of a change "before" and "after"')
    ]
    number: Annotated[int, Meta(description="Place in the chain of entries, without gaps")]
    previous_hash: Annotated[str, Meta(description="hash of the entry before")]
    hash: Annotated[
        str, Meta(description="SHA-256 of previousHash and of this entry (docs/audit.md)")
    ]


class AuditPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of what was done."""

    data: list[AuditEvent]
    next_cursor: str | None


class AuditSelection(msgspec.Struct, rename="camel", kw_only=True):
    """Which events of the audit log; times are half-open."""

    action: Annotated[str, Meta(description='An action, or a group of them: "webhook.*"')] = ""
    target_id: Annotated[str, Meta(description="What it was done to")] = ""
    key_id: Annotated[str, Meta(description="Which API key did it")] = ""
    member_id: Annotated[str, Meta(description="Which member did it")] = ""
    from_: datetime | None = field(name="from", default=None)
    to: datetime | None = None


class AuditQuery(AuditSelection, rename="camel", kw_only=True):
    """Which page of which events of the audit log; times are half-open."""

    limit: PageLimit = PAGE_SIZE_DEFAULT
    cursor: PageCursor = ""


def selection_to_proto(asked: AuditSelection) -> pb.ListAuditEventsRequest:
    """The request for all of them. InvalidArgumentError: done by a key and by a member."""
    if asked.key_id and asked.member_id:
        problem = FieldProblem("memberId", "must be left out with keyId")
        raise InvalidArgumentError([problem])
    return pb.ListAuditEventsRequest(
        action=asked.action,
        target_id=asked.target_id,
        key_id=asked.key_id or asked.member_id,
        from_time=timestamp(asked.from_),
        to_time=timestamp(asked.to),
    )


def to_proto(asked: AuditQuery) -> pb.ListAuditEventsRequest:
    """The request for a page."""
    request = selection_to_proto(asked)
    request.page_size, request.page_token = asked.limit, asked.cursor
    return request


def from_proto(message: pb.AuditEvent) -> AuditEvent:
    """The JSON of an event."""
    return AuditEvent(
        id=message.id,
        action=message.action,
        target_id=message.target_id or None,
        key_id=message.key_id if message.key_id.startswith("key_") else None,
        member_id=message.key_id if message.key_id.startswith("mem_") else None,
        request_id=message.request_id or None,
        created_at=time_of(message.time),
        details=raw_object(message.details_json),
        number=message.number,
        previous_hash=message.previous_hash,
        hash=message.hash,
    )


class VerificationQuery(msgspec.Struct, rename="camel", kw_only=True):
    """From where on the chain is worked out again."""

    after: Annotated[
        int, Meta(ge=0, le=2**63 - 1, description="The last entry that is known to be right")
    ] = 0


class Verification(msgspec.Struct, rename="camel", kw_only=True):
    """What was found of the chain of entries."""

    number: Annotated[int, Meta(description="The last entry that was looked at and is right")]
    head_number: Annotated[int, Meta(description="The last entry; beyond number: ask again")]
    hash: Annotated[str, Meta(description="The hash of the entry number, to be noted")]
    broken_number: Annotated[
        int | None, Meta(description="The first entry that is not as it was; null: none")
    ]


def verification_from_proto(message: pb.VerifyAuditLogResponse) -> Verification:
    """The JSON of what was found."""
    return Verification(
        number=message.number,
        head_number=message.head_number,
        hash=message.hash,
        broken_number=message.broken_number or None,
    )
