"""Members and their sessions."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from usageflow.accounts.v1 import accounts_pb2, members_pb2

from gateway.sessions import Viewer
from gateway.shapes.accounts import Organization, organization_from_proto
from gateway.shapes.common import name_of, time_of, time_or_none

RoleName = Literal["OWNER", "ADMIN", "DEVELOPER", "VIEWER"]
_ROLE = "ROLE_"


class Member(msgspec.Struct, rename="camel", kw_only=True):
    """A person in the organization."""

    id: str
    email: str
    name: str
    role: Annotated[str, Meta(description="OWNER, ADMIN, DEVELOPER or VIEWER")]
    created_at: datetime
    signed_in_at: Annotated[datetime | None, Meta(description="The last time; null: never")]
    has_password: bool


class Session(msgspec.Struct, rename="camel", kw_only=True):
    """One place where the member is signed in."""

    id: str
    created_at: datetime
    used_at: Annotated[datetime, Meta(description="Give or take five minutes")]
    expires_at: Annotated[datetime, Meta(description="At the latest")]
    address: str | None
    user_agent: str | None
    current: Annotated[bool, Meta(description="Whether it is the one that asks")]


class SessionPage(msgspec.Struct, rename="camel", kw_only=True):
    """A page of sessions."""

    data: list[Session]
    next_cursor: str | None


class CurrentSession(msgspec.Struct, rename="camel", kw_only=True):
    """Who has signed in, and what they look at."""

    member: Member
    organization: Organization
    mode: Annotated[str, Meta(description="live or test")]
    csrf_token: Annotated[
        str, Meta(description="For the header x-csrf-token of what changes something")
    ]


def member_from_proto(message: members_pb2.Member) -> Member:
    """The JSON of a member."""
    return Member(
        id=message.id,
        email=message.email,
        name=message.name,
        role=name_of(accounts_pb2.Role, message.role, _ROLE),
        created_at=time_of(message.create_time),
        signed_in_at=time_or_none(message, "sign_in_time"),
        has_password=message.has_password,
    )


def session_from_proto(message: members_pb2.Session) -> Session:
    """The JSON of a session."""
    return Session(
        id=message.id,
        created_at=time_of(message.create_time),
        used_at=time_of(message.use_time),
        expires_at=time_of(message.expire_time),
        address=message.address or None,
        user_agent=message.user_agent or None,
        current=message.current,
    )


def current_from_proto(
    message: members_pb2.GetCurrentMemberResponse, asking: Viewer | None
) -> CurrentSession:
    """The JSON of who asks."""
    return CurrentSession(
        member=member_from_proto(message.member),
        organization=organization_from_proto(message.organization),
        mode=asking.mode if asking else "",
        csrf_token=asking.csrf_token if asking else "",
    )
