"""Links to the customer portal."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from usageflow.accounts.v1 import portal_pb2 as pb

from gateway.shapes.common import PageQuery, time_of, time_or_none
from services.kit import clock


class NewPortalLink(msgspec.Struct, rename="camel", kw_only=True):
    """For whom a link is, and how long it works."""

    customer_id: str
    expires_in_seconds: Annotated[
        int,
        Meta(ge=60, le=2_592_000, description="How long it works; 30 days at most"),
    ] = 86_400


class PortalLink(msgspec.Struct, rename="camel", kw_only=True):
    """A link that shows what is one customer's: usage, subscriptions, invoices."""

    id: str
    customer_id: str
    status: Annotated[str, Meta(description="OPEN, REVOKED or EXPIRED")]
    created_by: Annotated[str, Meta(description="The API key or member that made it")]
    created_at: datetime
    expires_at: datetime


class PortalLinkWithUrl(PortalLink, rename="camel", kw_only=True):
    """A new link; its address is shown only here."""

    url: Annotated[str, Meta(description="Whoever has it sees what is the customer's")]


class PortalLinkPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of links."""

    data: list[PortalLink]
    next_cursor: str | None


class PortalLinksQuery(PageQuery, rename="camel", kw_only=True):
    """Which links, and which page of them, newest first."""

    customer_id: Annotated[str, Meta(description="Only this customer's; left out: all")] = ""


def to_proto(new: NewPortalLink) -> pb.CreatePortalLinkRequest:
    """The request that makes a link."""
    return pb.CreatePortalLinkRequest(
        customer_id=new.customer_id, expires_in_seconds=new.expires_in_seconds
    )


def from_proto(message: pb.PortalLink) -> PortalLink:
    """The JSON of a link."""
    return PortalLink(
        id=message.id,
        customer_id=message.customer_id,
        status=_status(message),
        created_by=message.created_by,
        created_at=time_of(message.create_time),
        expires_at=time_of(message.expire_time),
    )


def with_url(message: pb.CreatePortalLinkResponse, base_url: str) -> PortalLinkWithUrl:
    """The JSON of a new link."""
    shown = msgspec.structs.asdict(from_proto(message.portal_link))
    return PortalLinkWithUrl(**shown, url=f"{base_url}/portal?token={message.token}")


def _status(message: pb.PortalLink) -> str:
    if time_or_none(message, "revoke_time"):
        return "REVOKED"
    return "OPEN" if clock.now() < time_of(message.expire_time) else "EXPIRED"
